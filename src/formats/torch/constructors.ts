/**
 * The list of what a PyTorch file may call: constructors of tensors, NumPy arrays and plain data, each written here
 * anew. Names that are not on it are never looked up anywhere else.
 */
import { NumpyArray, NumpyDtype, numpyScalar } from "./numpy.js";
import { malformed, PickledDict, PickledGlobal, PickledObject, type Storage } from "./objects.js";
import { refusedCall } from "./pickle.js";
import { StoredTensor, torchDtype } from "./tensor.js";

type Constructor = (given: readonly unknown[]) => unknown;

const CONSTRUCTORS: ReadonlyMap<string, Constructor> = new Map<string, Constructor>([
  ["collections.OrderedDict", ([pairs]) => dictOf(pairs)],
  ["collections.defaultdict", ([, pairs]) => dictOf(pairs)],
  ["collections.Counter", ([pairs]) => dictOf(pairs)],
  ["collections.deque", ([items]) => listOf(items)],
  ...["builtins", "__builtin__"].flatMap((module): [string, Constructor][] => [
    [`${module}.dict`, ([pairs]) => dictOf(pairs)],
    [`${module}.list`, ([items]) => listOf(items)],
    [`${module}.tuple`, ([items]) => listOf(items)],
    [`${module}.set`, ([items]) => new Set(listOf(items))],
    [`${module}.frozenset`, ([items]) => new Set(listOf(items))],
    [`${module}.bytearray`, ([content]) => encoded(content)],
    ...["complex", "slice", "range", "object"].map((name) => recordOf(`${module}.${name}`)),
  ]),
  ["_codecs.encode", ([content]) => encoded(content)],
  ["copyreg._reconstructor", reconstructed],
  ["copy_reg._reconstructor", reconstructed],
  ...["functools.partial", "torch.device", "torch.Generator", "datetime.datetime", "datetime.timedelta"].map(
    recordOf,
  ),
  ...["PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"].map((name) =>
    recordOf(`pathlib.${name}`),
  ),
  ["torch.serialization._get_layout", () => new PickledObject("torch.layout")],
  ["torch.Size", ([items]) => listOf(items)],
  ["torch._utils._rebuild_tensor", (given) => tensorOf(given)],
  ["torch._utils._rebuild_tensor_v2", (given) => tensorOf(given)],
  ["torch._utils._rebuild_tensor_v3", (given) => tensorOf(given, given[6])],
  ["torch._utils._rebuild_parameter", ([data]) => data],
  ["torch._utils._rebuild_parameter_with_state", ([data]) => data],
  ["torch.nn.parameter.Parameter", ([data]) => data],
  ["torch._tensor._rebuild_from_type_v2", rebuiltFromType],
  ["torch._utils._rebuild_device_tensor_from_numpy", ([data]) => data],
  ["torch._utils._rebuild_xla_tensor", ([data]) => data],
  ...["numpy.core", "numpy._core"].flatMap((module): [string, Constructor][] => [
    [`${module}.multiarray.scalar`, numpyScalar],
    [`${module}.multiarray._reconstruct`, () => new NumpyArray()],
    [`${module}.numeric._frombuffer`, bufferOf],
  ]),
  ["numpy.dtype", ([code]) => new NumpyDtype(code)],
  ["numpy.ndarray", () => new NumpyArray()],
]);

/** What a call of that name builds; undefined for names that are not on the list. */
export function construct(path: string, given: readonly unknown[]): unknown {
  return CONSTRUCTORS.get(path)?.(given);
}

/** PyTorch's name of a storage's element type out of its class, such as `Float` of `torch.FloatStorage`. */
export function storageKind(cls: unknown): string {
  const path = cls instanceof PickledGlobal ? cls.path : String(cls);
  const [, kind] = /^torch(?:\.cuda|\.storage)?\.(\w*?)Storage$/.exec(path) ?? [];
  if (kind !== undefined) return kind;
  throw malformed(`A storage of the unknown class ${path} is in this file.`, { got: path });
}

/** Whether a value is a storage. */
export function isStorage(value: unknown): value is Storage {
  return typeof value === "object" && value !== null && "kind" in value && "bytes" in value;
}

function recordOf(path: string): [string, Constructor] {
  return [path, (given) => new PickledObject(path, given)];
}

function dictOf(pairs: unknown): PickledDict {
  const dict = new PickledDict();
  const entries = pairs instanceof Map ? [...pairs] : listOf(pairs);
  for (const pair of entries) if (Array.isArray(pair) && pair.length === 2) dict.set(pair[0], pair[1]);
  return dict;
}

function listOf(items: unknown): unknown[] {
  if (items === undefined) return [];
  if (Array.isArray(items)) return [...items];
  if (items instanceof Set) return [...items];
  throw malformed("A list in this file is made from something that is no list.");
}

function encoded(content: unknown): Uint8Array {
  if (content instanceof Uint8Array) return content;
  if (typeof content === "string") return Uint8Array.from(content, (letter) => letter.charCodeAt(0));
  throw malformed("Bytes in this file are made from something that is no text.");
}

/** Protocols 0 and 1 make instances like this; `object` and its like have no state of their own. */
function reconstructed([cls]: readonly unknown[]): unknown {
  if (!(cls instanceof PickledGlobal)) throw malformed("An object in this file has no class.");
  return construct(cls.path, []) ?? new PickledObject(cls.path);
}

/** A tensor of a class of its own, or one with attributes: its class is left out. */
function rebuiltFromType([rebuild, , given]: readonly unknown[]): unknown {
  if (!(rebuild instanceof PickledGlobal) || !Array.isArray(given))
    throw malformed("A tensor in this file is made by nothing.");
  const built = construct(rebuild.path, given);
  if (built === undefined) throw refusedCall(rebuild.path);
  return built;
}

function tensorOf([storage, offset, shape, strides]: readonly unknown[], dtype?: unknown): StoredTensor {
  if (!isStorage(storage) || !isNumbers([offset]) || !isNumbers(shape) || !isNumbers(strides))
    throw malformed("A tensor in this file is broken: expected storage, offset, shape and strides.");
  const named = dtype instanceof PickledGlobal ? torchDtype(dtype.path.replace(/^torch\./, "")) : undefined;
  return new StoredTensor(storage, shape, {
    offset: Number(offset),
    strides,
    ...(named && { dtype: named }),
  });
}

function isNumbers(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((each) => typeof each === "number");
}

/** What protocol 5 makes of an array whose bytes are in the pickle itself. */
function bufferOf([content, dtype, shape, order]: readonly unknown[]): unknown {
  const array = new NumpyArray();
  array.build([1, shape, dtype, order === "F", content]);
  return array;
}
