/**
 * PyTorch's file formats around the pickle: the zip archive of today (one entry for each storage), the legacy format
 * (several pickles, then the storages one after another), and a bare pickle. TorchScript programs and exported programs are
 * recognised; they hold code, which is not run here.
 */
import { isZip, type ZipEntry, zipEntries } from "../../base/zip.js";
import { byteLength } from "../../tensor/dtype.js";
import { construct, storageKind } from "./constructors.js";
import { malformed, type Storage, unsupported } from "./objects.js";
import { isPickle, unpickle } from "./pickle.js";
import { storageDtype } from "./tensor.js";

/** What kind of file of PyTorch's this is. */
export type TorchKind = "zip" | "legacy" | "tar" | "torchscript" | "exported" | "package";

/** Begins every file of the legacy format, as a pickled number. */
const LEGACY_MAGIC = 0x1950a86a20f9469cfc6cn;
/** Bytes that all compressed entries of an archive may have together when inflated; PyTorch compresses none. */
const MOST_INFLATED = 2 ** 28;

/**
 * Which file format of PyTorch's the bytes are in; undefined for all else, broken archives included. A bare pickle counts
 * as legacy.
 */
export function torchKind(bytes: Uint8Array): TorchKind | undefined {
  if (isPickle(bytes)) return "legacy";
  if (isOldTar(bytes)) return "tar";
  if (!isZip(bytes)) return undefined;
  let names: string[];
  try {
    names = zipEntries(bytes, malformed).map(({ name }) => name);
  } catch {
    return undefined;
  }
  const has = (pattern: RegExp) => names.some((name) => pattern.test(name));
  if (has(/^[^/]+\/(code\/|constants\.pkl$)/)) return "torchscript";
  if (has(/(^|\/)serialized_exported_program\.json$|(^|\/)models\/[^/]+\.json$|^[^/]+\/archive_format$/))
    return "exported";
  if (has(/^[^/]+\/\.data\/extern_modules$/)) return "package";
  return has(/^([^/]+\/)?data\.pkl$/) ? "zip" : undefined;
}

/**
 * The value that `torch.save` was given, as data.
 * @throws PolyheadError MODEL_MALFORMED; MODEL_UNSUPPORTED for programs and for calls that are not on the list;
 *   LIMIT_EXCEEDED
 */
export function readTorchFile(bytes: Uint8Array): unknown {
  const kind = torchKind(bytes);
  if (kind === "zip") return readArchive(bytes);
  if (kind === "legacy") return readLegacy(bytes);
  if (kind === "tar")
    throw unsupported(
      "The file is in PyTorch's format from before version 0.1.10 (a tar archive); load it in Python and save it again: torch.save(torch.load(FILE), NEW).",
    );
  if (kind === undefined)
    throw malformed(
      "The file is not one that torch.save writes; expected a zip archive with data.pkl, or a pickle.",
    );
  throw unsupported(PROGRAMS[kind], { got: kind });
}

const PROGRAMS: Readonly<Record<"torchscript" | "exported" | "package", string>> = {
  torchscript:
    "The file is a TorchScript program (torch.jit.save), which holds code. Export it to ONNX where PyTorch is: " +
    'torch.onnx.export(torch.jit.load(FILE).eval(), torch.zeros(1, 3, 224, 224), "model.onnx"), and import that; or save its weights, ' +
    "torch.save(torch.jit.load(FILE).state_dict(), NEW), and import them with an architecture.",
  exported:
    "The file is an exported program (torch.export.save, .pt2), which holds a graph of PyTorch's own operators. Export it to ONNX where PyTorch is: " +
    'torch.onnx.export(torch.export.load(FILE), dynamo=True).save("model.onnx"), and import that.',
  package:
    "The file is a torch.package archive, which holds source code. Load it in Python and save the model's state_dict(), or export it with torch.onnx.export.",
};

function readArchive(bytes: Uint8Array): unknown {
  const entries = zipEntries(bytes, malformedArchive);
  const inflated = entries.reduce((sum, { stored, size }) => sum + (stored ? 0 : size), 0);
  if (inflated > MOST_INFLATED)
    throw unsupported(
      `The archive inflates to ${inflated} bytes; PyTorch does not compress, and the limit for archives that somebody else packed is ${MOST_INFLATED}. Pack it without compression.`,
      { got: inflated, limit: MOST_INFLATED },
    );
  const pickle = entries.find(({ name }) => /^([^/]+\/)?data\.pkl$/.test(name));
  if (!pickle) throw malformed("The archive has no data.pkl.");
  const folder = pickle.name.slice(0, -"data.pkl".length);
  const byName = new Map(entries.map((entry) => [entry.name, entry]));
  const order = byName.get(`${folder}byteorder`);
  if (order && new TextDecoder().decode(order.read()).trim() === "big")
    throw unsupported("The file was written on a big-endian machine; save it again on a little-endian one.");
  const storages = new Map<string, Storage>();
  const persistent = (id: unknown) => {
    const { cls, key, length } = storageId(id);
    const kind = storageKind(cls);
    const known = storages.get(key);
    if (known) return known;
    const made = archivedStorage(kind, length, byName.get(`${folder}data/${key}`), key);
    storages.set(key, made);
    return made;
  };
  return unpickle(pickle.read(), { construct, persistent }).value;
}

function archivedStorage(kind: string, length: number, entry: ZipEntry | undefined, key: string): Storage {
  const size = byteLength(storageDtype(kind), length);
  if (!entry || entry.size < size)
    throw malformed(
      `Storage ${JSON.stringify(key)} should have ${size} bytes; the archive has ${entry?.size ?? "none"}.`,
      {
        storage: key,
        expected: size,
        got: entry?.size,
      },
    );
  let content: Uint8Array | undefined;
  const read = () => {
    content ??= entry.read();
    return content;
  };
  return { kind, length, bytes: read };
}

/** The legacy format: magic number, version, facts of the machine, the value, keys of the storages, the storages. */
function readLegacy(bytes: Uint8Array): unknown {
  const storages = new Map<string, LegacyStorage>();
  const persistent = (id: unknown) => legacyObject(id, storages);
  const first = unpickle(bytes, { construct, persistent });
  if (first.value !== LEGACY_MAGIC) return first.value; // a pickle that is none of torch.save's
  let at = first.end;
  const next = () => {
    const { value, end } = unpickle(bytes, { construct, persistent }, at);
    at = end;
    return value;
  };
  const [version, machine, value, keys] = [next(), next(), next(), next()];
  if (version !== 1001 || !Array.isArray(keys))
    throw malformed(`The file is of version ${String(version)} of PyTorch's legacy format; expected 1001.`);
  if (machine instanceof Map && machine.get("little_endian") === false)
    throw unsupported("The file was written on a big-endian machine; save it again on a little-endian one.");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (const key of keys) {
    const storage = storages.get(String(key));
    if (!storage || at + 8 > bytes.length)
      throw malformed("The file ends before its tensors; it may be truncated.");
    const count = Number(view.getBigInt64(at, true));
    const end = at + 8 + byteLength(storageDtype(storage.kind), Math.max(0, count));
    if (count < storage.length || end > bytes.length)
      throw malformed(
        `Storage ${JSON.stringify(String(key))} should have ${storage.length} elements; the file has ${count} or ends before them.`,
        { storage: String(key) },
      );
    storage.fill(bytes.subarray(at + 8, end));
    at = end;
  }
  return value;
}

/** A storage whose bytes come after the pickle that speaks of it. */
class LegacyStorage implements Storage {
  readonly kind: string;
  readonly length: number;
  #bytes: Uint8Array | undefined;

  constructor(kind: string, length: number) {
    this.kind = kind;
    this.length = length;
  }

  fill(bytes: Uint8Array): void {
    this.#bytes = bytes;
  }

  bytes(): Uint8Array {
    if (!this.#bytes) throw malformed("The file does not hold all the tensors that it speaks of.");
    return this.#bytes;
  }
}

function legacyObject(id: unknown, storages: Map<string, LegacyStorage>): unknown {
  if (Array.isArray(id) && id[0] === "module") return id[1]; // a class, with its source, which is left alone
  const { cls, key, length, view } = storageId(id);
  let storage = storages.get(key);
  if (!storage) {
    storage = new LegacyStorage(storageKind(cls), length);
    storages.set(key, storage);
  }
  if (!Array.isArray(view)) return storage;
  const [, offset, size] = view;
  if (!isCount(offset) || !isCount(size) || offset + size > storage.length)
    throw malformed("A part of a storage leaves it.");
  const { kind } = storage;
  const width = byteLength(storageDtype(kind), 1);
  const whole = storage;
  return { kind, length: size, bytes: () => whole.bytes().subarray(offset * width, (offset + size) * width) };
}

function storageId(id: unknown): { cls: unknown; key: string; length: number; view: unknown } {
  const [type, cls, key, , length, view] = Array.isArray(id) ? id : [];
  if (type !== "storage" || !isCount(length) || (typeof key !== "string" && typeof key !== "number"))
    throw malformed("The pickle refers to something that is no storage.");
  return { cls, key: String(key), length, view };
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isOldTar(bytes: Uint8Array): boolean {
  return bytes.length > 512 && new TextDecoder("latin1").decode(bytes.subarray(257, 262)) === "ustar";
}

function malformedArchive(reason: string, details: Readonly<Record<string, unknown>> = {}) {
  return malformed(`The archive of this PyTorch file cannot be read: ${reason}.`, details);
}
