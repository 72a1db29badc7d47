/** Where a training is kept while it goes on. */
import { basename, dirname, join } from "node:path";
import { PolyheadError } from "../../base/errors.js";
import { exists } from "../../files/disk.js";
import type { TuneOptions } from "./options.js";

/**
 * The folder that the options say, beside the result by default.
 * @throws PolyheadError ALREADY_EXISTS for a training that was interrupted and that nobody asked to go on with
 */
export async function checkpointFolder({ out, checkpoint, resume = false }: TuneOptions): Promise<string> {
  const folder = checkpoint ?? join(dirname(out), `${basename(out, ".onnx")}.checkpoint`);
  if (resume || !(await exists(folder))) return folder;
  throw new PolyheadError(
    "ALREADY_EXISTS",
    `A training into this file was interrupted; what it did is in ${folder}. Go on with it with --resume, or remove the folder to begin anew.`,
    { path: folder },
  );
}
