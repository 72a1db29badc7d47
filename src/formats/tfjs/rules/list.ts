/**
 * Lists of tensors, which loops read from and write to. They exist at import only: places in them have to be known, and
 * what is taken out of a list is the value that was put there. A TensorArray is such a list as well: TensorFlow
 * passes a "flow" from write to read, which here is the list itself.
 */
import { isConcrete } from "../../../tensor/shape.js";
import { malformed } from "../json.js";
import type { Call, Rule, Rules } from "../rule.js";
import { checkListLength, unsupported } from "../unsupported.js";
import type { TensorList, Value } from "../value.js";
import { packed } from "./creation.js";
import { unpacked } from "./slice.js";

/** Places in a list, as numbers. */
function places(call: Call, index: number): readonly number[] {
  const known = call.known(index);
  if (known && isConcrete(known)) return known;
  throw unsupported("a place in a list, or its length, that is known at run time only");
}

function place(call: Call, index: number): number {
  const [first] = places(call, index);
  if (first !== undefined) return first;
  throw malformed(`Node ${JSON.stringify(call.name)} (${call.op}) names no place.`);
}

function emptyList(call: Call, length: number): TensorList {
  if (length < 0) throw malformed(`Node ${JSON.stringify(call.name)} makes a list of ${length} elements.`);
  checkListLength(length, "a list");
  return { elements: Array<undefined>(length).fill(undefined) };
}

function read(call: Call, list: TensorList, at: number): Value {
  const value = list.elements[at];
  if (value) return value;
  throw malformed(
    `Node ${JSON.stringify(call.name)} (${call.op}) reads element ${at} of a list of ${list.elements.length}, where nothing was put.`,
    { node: call.name, place: at },
  );
}

function written(call: Call, list: TensorList, at: number, value: Value): TensorList {
  const { length } = list.elements;
  if (Number.isInteger(at) && at >= 0 && at < length) return { elements: list.elements.with(at, value) };
  throw malformed(
    `Node ${JSON.stringify(call.name)} (${call.op}) writes element ${at} of a list of ${length}.`,
    { node: call.name, place: at },
  );
}

function stacked(call: Call, list: TensorList, from: readonly number[] = [...list.elements.keys()]): Value {
  if (from.length === 0) throw unsupported("an empty list as a tensor");
  return packed(
    call,
    from.map((at) => read(call, list, at)),
    0,
  );
}

function lengthOf(call: Call, list: TensorList): Value {
  return call.builder.scalar("int32", list.elements.length);
}

const reserved: Rule = (call) => emptyList(call, place(call, 1));
const ofTensor: Rule = (call) => ({ elements: unpacked(call, call.input(0), 0) });

function newArray(call: Call): readonly TensorList[] {
  const array = emptyList(call, place(call, 0));
  return [array, array];
}

/** Spreads the rows of a tensor over places of the array. */
function scattered(call: Call): TensorList {
  const rows = unpacked(call, call.input(2), 0);
  return places(call, 1).reduce((list, at, row) => {
    const value = rows[row];
    if (!value) throw malformed(`Node ${JSON.stringify(call.name)} has fewer rows than places.`);
    return written(call, list, at, value);
  }, call.list(3));
}

/** Rules for lists of tensors. */
export const listRules: Rules = {
  EmptyTensorList: () => ({ elements: [] }),
  TensorListReserve: reserved,
  TensorListFromTensor: ofTensor,
  TensorListLength: (call) => lengthOf(call, call.list(0)),
  TensorListGetItem: (call) => read(call, call.list(0), place(call, 1)),
  TensorListSetItem: (call) => written(call, call.list(0), place(call, 1), call.input(2)),
  TensorListPushBack: (call) => ({ elements: [...call.list(0).elements, call.input(1)] }),
  TensorListGather: (call) => stacked(call, call.list(0), places(call, 1)),
  TensorListStack: (call) => stacked(call, call.list(0)),

  TensorArrayV3: newArray,
  TensorArraySizeV3: (call) => lengthOf(call, call.list(1)),
  TensorArrayReadV3: (call) => read(call, call.list(2), place(call, 1)),
  TensorArrayWriteV3: (call) => written(call, call.list(3), place(call, 1), call.input(2)),
  TensorArrayScatterV3: scattered,
  TensorArrayGatherV3: (call) => stacked(call, call.list(2), places(call, 1)),
};
