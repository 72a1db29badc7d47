/** Where the real models and arrays of the tests lie; tests that need them skip by name without them. */
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";

const repository = fileURLToPath(new URL("..", import.meta.url));

/** Folder with the fixtures: `POLYHEAD_FIXTURES`, else `../shared/fixtures` beside the repository. */
export const fixturesDir = process.env.POLYHEAD_FIXTURES ?? resolve(repository, "../shared/fixtures");

/** Whether the fixtures are on this machine. */
export const hasFixtures = existsSync(fixturesDir);
