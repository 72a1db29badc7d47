/**
 * The weights of a TF.js model: groups of binary files, each the concatenation of its tensors, which may be
 * quantised to uint8, uint16 or float16. All weights are widened to the dtype that TF.js computes in. The
 * sizes that `model.json` claims are compared with the files before anything is allocated.
 */
import { type Folder, insideFolder } from "../../base/folder.js";
import { elementCount, formatShape, type Shape } from "../../tensor/shape.js";
import { fromBytes, halfToNumber, type Tensor, tensor } from "../../tensor/tensor.js";
import { HIGHEST_RANK, type TfjsDType } from "./attributes.js";
import { asList, asNumber, asRecord, asText, asWholeNumber, malformed } from "./json.js";

/** How one tensor is stored. */
interface WeightSpec {
  readonly name: string;
  readonly shape: Shape;
  readonly dtype: TfjsDType;
  readonly stored: StoredDType;
  /** Stored value times `scale` plus `min` is the value; for uint8 and uint16 only. */
  readonly scale: number;
  readonly min: number;
}

/** Tensors that lie one after the other in one or several files. */
export interface WeightGroup {
  readonly paths: readonly string[];
  readonly specs: readonly WeightSpec[];
}

const STORED_BYTES = { float32: 4, int32: 4, bool: 1, string: 0, uint8: 1, uint16: 2, float16: 2 } as const;
type StoredDType = keyof typeof STORED_BYTES;

/**
 * Reads `weightsManifest`.
 * @throws PolyheadError MODEL_MALFORMED, PATH_REFUSED for files outside of the model's folder
 */
export function readManifest(manifest: unknown): WeightGroup[] {
  const taken = new Set<string>();
  return asList(manifest, "weightsManifest").map((raw, index) => {
    const what = `weightsManifest[${index}]`;
    const group = asRecord(raw, what);
    const paths = asList(group.paths, `${what}.paths`).map((path) =>
      insideFolder(asText(path, `${what}.paths`)),
    );
    for (const path of paths) {
      if (taken.has(path)) throw malformed(`${what} lists the file ${JSON.stringify(path)} twice.`, { path });
      taken.add(path);
    }
    return { paths, specs: asList(group.weights, `${what}.weights`).map(readSpec) };
  });
}

function readSpec(raw: unknown): WeightSpec {
  const entry = asRecord(raw, "A weight");
  const name = asText(entry.name, "A weight's name");
  const what = `Weight ${JSON.stringify(name)}`;
  const shape = asList(entry.shape, `${what}: shape`).map((size) => asWholeNumber(size, `${what}: shape`));
  if (
    shape.length > HIGHEST_RANK ||
    shape.some((size) => size < 0 || size >= 2 ** 31) ||
    elementCount(shape) > Number.MAX_SAFE_INTEGER / 16
  ) {
    throw malformed(`${what} has the impossible shape ${formatShape(shape)}.`, { weight: name, shape });
  }
  const dtype = asText(entry.dtype, `${what}: dtype`);
  if (dtype !== "float32" && dtype !== "int32" && dtype !== "bool" && dtype !== "string") {
    throw malformed(`${what} has dtype ${JSON.stringify(dtype)}; expected float32, int32, bool or string.`, {
      weight: name,
      dtype,
    });
  }
  const plain: WeightSpec = { name, shape, dtype, stored: dtype, scale: 1, min: 0 };
  if (entry.quantization === undefined || entry.quantization === null) return plain;

  const quantization = asRecord(entry.quantization, `${what}: quantization`);
  const stored = asText(quantization.dtype, `${what}: quantization.dtype`);
  if (stored === "float16" && dtype === "float32") return { ...plain, stored };
  if ((stored === "uint8" || stored === "uint16") && (dtype === "float32" || dtype === "int32")) {
    const scale = asNumber(quantization.scale, `${what}: quantization.scale`);
    const min = asNumber(quantization.min, `${what}: quantization.min`);
    return { ...plain, stored, scale, min };
  }
  throw malformed(
    `${what} is ${dtype} quantised to ${JSON.stringify(stored)}; expected float32 as float16, uint8 or uint16, or int32 as uint8 or uint16.`,
    { weight: name, dtype, stored },
  );
}

/**
 * All weights by name.
 * @throws PolyheadError MODEL_MALFORMED when the files are not as long as `model.json` says, FILE_NOT_FOUND
 */
export async function loadWeights(
  folder: Folder,
  groups: readonly WeightGroup[],
): Promise<Map<string, Tensor>> {
  const tensors = new Map<string, Tensor>();
  for (const group of groups) {
    const bytes = await readGroup(folder, group);
    let offset = 0;
    for (const spec of group.specs) {
      const length = spec.dtype === "string" ? stringsLength(spec, bytes, offset) : storedBytes(spec);
      if (offset + length > bytes.length) throw sizeError(group, offset + length, bytes.length);
      tensors.set(spec.name, decode(spec, bytes.subarray(offset, offset + length)));
      offset += length;
    }
    if (offset !== bytes.length) throw sizeError(group, offset, bytes.length);
  }
  return tensors;
}

async function readGroup(folder: Folder, group: WeightGroup): Promise<Uint8Array> {
  const sizes = await Promise.all(group.paths.map((path) => folder.size(path)));
  const total = sizes.reduce((sum, size) => sum + size, 0);
  const expected = group.specs.reduce((sum, spec) => sum + storedBytes(spec), 0);
  const exact = group.specs.every((spec) => spec.dtype !== "string");
  if (exact ? total !== expected : total < expected) throw sizeError(group, expected, total);

  const [onlyPath, ...more] = group.paths;
  if (onlyPath !== undefined && more.length === 0) return folder.read(onlyPath);
  const bytes = new Uint8Array(total);
  let offset = 0;
  for (const [index, path] of group.paths.entries()) {
    bytes.set(await folder.read(path, 0, sizes[index] ?? 0), offset);
    offset += sizes[index] ?? 0;
  }
  return bytes;
}

function storedBytes(spec: WeightSpec): number {
  return elementCount(spec.shape) * (spec.dtype === "string" ? 4 : STORED_BYTES[spec.stored]);
}

function sizeError(group: WeightGroup, expected: number, got: number) {
  return malformed(
    `The weights take ${expected} bytes; the files ${group.paths.join(", ")} have ${got}. Fetch them again.`,
    { paths: group.paths, expected, got },
  );
}

function decode(spec: WeightSpec, bytes: Uint8Array): Tensor {
  if (spec.dtype === "string")
    return { dtype: "string", shape: spec.shape, data: decodeStrings(spec, bytes) };
  if (spec.stored === spec.dtype) return fromBytes(spec.dtype, spec.shape, bytes);
  if (spec.stored === "float16") {
    const bits = fromBytes("float16", spec.shape, bytes).data as Uint16Array;
    return tensor("float32", spec.shape, widenHalves(bits));
  }
  const levels = fromBytes(spec.stored === "uint8" ? "uint8" : "uint16", spec.shape, bytes).data as
    | Uint8Array
    | Uint16Array;
  const values = new (spec.dtype === "int32" ? Int32Array : Float32Array)(levels.length);
  for (const [index, level] of levels.entries()) {
    const value = level * spec.scale + spec.min;
    values[index] = spec.dtype === "int32" ? Math.round(value) : value;
  }
  return tensor(spec.dtype, spec.shape, values);
}

let halves: Float32Array | undefined;

function widenHalves(bits: Uint16Array): Float32Array {
  halves ??= Float32Array.from({ length: 2 ** 16 }, (_, half) => halfToNumber(half));
  const values = new Float32Array(bits.length);
  for (let index = 0; index < bits.length; index++) values[index] = halves[bits[index] ?? 0] ?? 0;
  return values;
}

/** Strings are stored as their length (4 bytes, little-endian) and their UTF-8 bytes. */
function stringsLength(spec: WeightSpec, bytes: Uint8Array, start: number): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let offset = start;
  for (let left = elementCount(spec.shape); left > 0; left--) {
    if (offset + 4 > bytes.length) {
      throw malformed(`Weight ${JSON.stringify(spec.name)} is cut off within its strings.`, {
        weight: spec.name,
      });
    }
    offset += 4 + view.getUint32(offset, true);
  }
  return offset - start;
}

function decodeStrings(spec: WeightSpec, bytes: Uint8Array): string[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const decoder = new TextDecoder();
  let offset = 0;
  return Array.from({ length: elementCount(spec.shape) }, () => {
    const length = view.getUint32(offset, true);
    offset += 4 + length;
    return decoder.decode(bytes.subarray(offset - length, offset));
  });
}
