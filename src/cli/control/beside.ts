/** The backbone that lies beside a head's file, as `split` writes the two: for a head whose backbone is not there yet. */
import { basename, dirname, join } from "node:path";
import { PolyheadError } from "../../base/errors.js";
import { loadModel } from "../../files/disk.js";
import { readMetadata } from "../../onnx/metadata.js";
import type { Model } from "../../onnx/model.js";

/** What the file is called. */
export const BACKBONE_FILE = "backbone.onnx";

/**
 * The model in `backbone.onnx` beside a head's file, when it makes all that the head was made for, told by content.
 * @param path of the head's file
 * @returns undefined where there is none, or it is another head's
 */
export async function backboneBeside(path: string, head: Model): Promise<Model | undefined> {
  const { taps = [] } = readMetadata(head);
  if (taps.length === 0 || basename(path) === BACKBONE_FILE) return undefined;
  const backbone = await loadModel(join(dirname(path), BACKBONE_FILE)).catch((thrown: unknown) => {
    if (thrown instanceof PolyheadError) return undefined;
    throw thrown;
  });
  const made = new Set((backbone && readMetadata(backbone).taps)?.map(({ identity }) => identity));
  return taps.every(({ identity }) => made.has(identity)) ? backbone : undefined;
}
