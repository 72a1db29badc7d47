// Writes docs/errors.md. Usage: node scripts/generate-errors.js
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { errorPage } from "./error-page.js";

const root = fileURLToPath(new URL("..", import.meta.url));
writeFileSync(join(root, "docs/errors.md"), await errorPage(root));
