/** Images sorted into classes by the folders they stand in: one folder a class, its name the label. */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { asError, PolyheadError } from "../base/errors.js";

/** An image file and its class. */
export interface LabelledFile {
  readonly path: string;
  /** Place of its class in the labels. */
  readonly classIndex: number;
}

/** What a folder of folders holds. */
export interface ImageFolder {
  /** Names of the folders, in the order of their UTF-16 code units. */
  readonly labels: readonly string[];
  /** By class, then by name. */
  readonly files: readonly LabelledFile[];
}

const IMAGE = /\.(jpe?g|png|webp)$/i;

/**
 * The images below a directory. Files directly in it, hidden ones and those with another extension than jpg,
 * jpeg, png and webp are passed over; folders within a class's folder belong to the class.
 * @throws PolyheadError FILE_NOT_FOUND for no such directory; INVALID_ARGUMENT for fewer than two classes;
 *   DATA_MALFORMED for a class without images
 */
export async function imageFolder(directory: string): Promise<ImageFolder> {
  const entries = await list(directory);
  const labels = entries.filter(({ isFolder }) => isFolder).map(({ name }) => name);
  if (labels.length < 2) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `${JSON.stringify(directory)} has ${labels.length} folders; expected at least two, one a class, with images inside.`,
      { path: directory, got: labels },
    );
  }
  const files: LabelledFile[] = [];
  const empty: string[] = [];
  for (const [classIndex, label] of labels.entries()) {
    const paths = await imagesBelow(join(directory, label));
    if (paths.length === 0) empty.push(label);
    files.push(...paths.map((path) => ({ path, classIndex })));
  }
  if (empty.length === 0) return { labels, files };
  throw new PolyheadError(
    "DATA_MALFORMED",
    `No images (jpg, jpeg, png, webp) for ${empty.map((label) => JSON.stringify(label)).join(", ")}; expected some in every folder of ${JSON.stringify(directory)}. Add images or remove the folder.`,
    { classes: empty },
  );
}

/**
 * Paths of the images in a directory and the folders within, by name.
 * @throws PolyheadError FILE_NOT_FOUND for no such directory
 */
export async function imagesBelow(directory: string): Promise<string[]> {
  const found: string[] = [];
  for (const { name, isFolder } of await list(directory)) {
    const path = join(directory, name);
    if (isFolder) found.push(...(await imagesBelow(path)));
    else if (IMAGE.test(name)) found.push(path);
  }
  return found;
}

/** Entries without hidden ones, sorted; links to folders within are followed as far as the system does. */
async function list(directory: string): Promise<{ name: string; isFolder: boolean }[]> {
  try {
    const names = (await readdir(directory)).filter((name) => !name.startsWith(".")).sort();
    const infos = await Promise.all(names.map((name) => stat(join(directory, name)).catch(() => undefined)));
    return names.map((name, at) => ({ name, isFolder: infos[at]?.isDirectory() ?? false }));
  } catch (thrown) {
    const cause = asError(thrown);
    throw new PolyheadError(
      "FILE_NOT_FOUND",
      `Cannot read the folder of images: ${cause.message}.`,
      { path: directory },
      { cause },
    );
  }
}
