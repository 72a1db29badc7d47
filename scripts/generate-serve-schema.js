// Writes docs/serve.schema.json, the schema of serve's configuration file, from the build. A test compares the two.
// Usage: npm run build && node scripts/generate-serve-schema.js
import { writeFileSync } from "node:fs";
import { ServeConfigSchema } from "../dist/cli/serve/config.js";

const schema = { $schema: "https://json-schema.org/draft/2020-12/schema", ...ServeConfigSchema };
writeFileSync(
  new URL("../docs/serve.schema.json", import.meta.url),
  `${JSON.stringify(schema, undefined, 2)}\n`,
);
