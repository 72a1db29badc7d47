/**
 * NumPy's archive of named arrays: a zip of `.npy` files, stored or deflated, with or without ZIP64. An archive is
 * one array of bytes in memory, so nothing beyond 4 GiB is written.
 */
import { zipSync } from "fflate";
import { PolyheadError } from "../base/errors.js";
import { zipEntries } from "../base/zip.js";
import { readNpy, writeNpy } from "./npy.js";
import type { Tensor } from "./tensor.js";

/** Bytes of a zip's records beside the files. */
const RECORDS = 76;
const MOST_BYTES = 0xffffffff;

/** Limits on reading. */
export interface NpzLimits {
  /** Most bytes that all deflated arrays may have together when inflated; 512 MiB when left out. */
  readonly inflatedBytes?: number;
}

/**
 * The arrays of a `.npz` file by name, in the order of the file. Stored arrays may be views that keep
 * `bytes` alive.
 * @throws PolyheadError DATA_MALFORMED; LIMIT_EXCEEDED when the arrays inflate to more than the limit
 */
export function readNpz(bytes: Uint8Array, { inflatedBytes = 2 ** 29 }: NpzLimits = {}): Map<string, Tensor> {
  const entries = zipEntries(bytes, malformed);
  const inflated = entries.reduce((sum, { stored, size }) => sum + (stored ? 0 : size), 0);
  if (inflated > inflatedBytes) {
    throw new PolyheadError(
      "LIMIT_EXCEEDED",
      `The .npz file inflates to ${inflated} bytes; the limit is ${inflatedBytes}. Write it without compression (numpy.savez) or raise the limit.`,
      { got: inflated, limit: inflatedBytes },
    );
  }
  const arrays = new Map<string, Tensor>();
  for (const entry of entries) {
    if (!entry.name.endsWith(".npy")) throw malformed(`${JSON.stringify(entry.name)} is not a .npy file`);
    const name = entry.name.slice(0, -".npy".length);
    if (arrays.has(name)) throw malformed(`it has two arrays named ${JSON.stringify(name)}`, { name });
    arrays.set(name, readNpy(entry.read()));
  }
  return arrays;
}

/**
 * The bytes of a `.npz` file with these arrays, stored as `numpy.savez` does.
 * @throws PolyheadError INVALID_ARGUMENT for a dtype that NumPy has not; LIMIT_EXCEEDED beyond 4 GiB
 */
export function writeNpz(arrays: ReadonlyMap<string, Tensor> | Readonly<Record<string, Tensor>>): Uint8Array {
  const files: Record<string, Uint8Array> = {};
  let size = 0;
  for (const [name, value] of arrays instanceof Map ? arrays : Object.entries(arrays)) {
    const file = writeNpy(value);
    size += file.length + 2 * (name.length * 3 + RECORDS);
    if (size >= MOST_BYTES) {
      throw new PolyheadError(
        "LIMIT_EXCEEDED",
        "The arrays have more than 4 GiB; write them to several .npz files.",
        {
          limit: MOST_BYTES,
        },
      );
    }
    files[`${name}.npy`] = file;
  }
  // NumPy's date, so that equal arrays give equal bytes.
  return zipSync(files, { level: 0, mtime: new Date(1980, 0, 1) });
}

function malformed(reason: string, details: Readonly<Record<string, unknown>> = {}): PolyheadError {
  return new PolyheadError("DATA_MALFORMED", `This .npz file cannot be read: ${reason}.`, details);
}
