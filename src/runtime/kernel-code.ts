/**
 * Kernels as WebAssembly, four elements at a time. JavaScript takes ten times as long for the same pass. The module
 * imports the memory that its operands lie in and exports one function, `pass`: where each operand begins, how many bytes of each
 * there are (a multiple of 16, not 0), and the numbers.
 */
import type { Expression, Kernel } from "./kernel.js";

const [I32, F32, V128] = [0x7f, 0x7d, 0x7b];
const OPERATIONS = { add: 0xe4, sub: 0xe5, mul: 0xe6, div: 0xe7, sqrt: 0xe3 } as const;
/** Bytes of four elements. */
const STEP = 16;

const get = (local: number) => [0x20, ...unsigned(local)];
const set = (local: number) => [0x21, ...unsigned(local)];
const simd = (operation: number) => [0xfd, ...unsigned(operation)];
const LOAD = [...simd(0x00), 4, 0];
const STORE = [...simd(0x0b), 4, 0];
const SPLAT = simd(0x13);
const ADD_I32 = [0x6a];

/** The bytes of a module. */
export function kernelCode(kernel: Kernel): Uint8Array {
  const { operands, numbers } = kernel;
  const types = [...repeated(operands + 1, I32), ...repeated(numbers, F32)];
  const { body, locals } = bodyOf(kernel);
  const declared = list([[...unsigned(locals), V128]]);
  const code = [...declared, ...body, 0x0b];
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, list([[0x60, ...list(types.map((type) => [type])), ...list([])]])),
    ...section(2, list([[...text("env"), ...text("memory"), 2, 0, 0]])),
    ...section(3, list([[0]])),
    ...section(7, list([[...text("pass"), 0, 0]])),
    ...section(10, list([[...unsigned(code.length), ...code]])),
  ]);
}

/** Numbers and what follows from them alone are computed once, before the loop; an expression that is used twice is computed once. */
function bodyOf({ operands, numbers, writes }: Kernel): { body: number[]; locals: number } {
  const length = operands;
  const first = operands + 1 + numbers;
  const known = new Map<Expression, number>();
  const [before, inside]: [number[], number[]] = [[], []];
  const isFixed = (value: Expression): boolean =>
    value.kind === "operand" ? false : !("of" in value) || value.of.every(isFixed);
  const operandLocals = new Map<number, number>();
  let locals = 0;
  const local = (value: Expression): number => {
    const made = known.get(value) ?? (value.kind === "operand" ? operandLocals.get(value.place) : undefined);
    if (made !== undefined) return made;
    const code = codeOf(value);
    const place = first + locals++;
    (isFixed(value) ? before : inside).push(...code, ...set(place));
    known.set(value, place);
    if (value.kind === "operand") operandLocals.set(value.place, place);
    return place;
  };
  const codeOf = (value: Expression): number[] => {
    switch (value.kind) {
      case "operand":
        return [...get(value.place), ...LOAD];
      case "number":
        return [...get(operands + 1 + value.place), ...SPLAT];
      case "constant":
        return [0x43, ...new Uint8Array(Float32Array.of(value.value).buffer), ...SPLAT];
      default:
        return [...value.of.flatMap((each) => get(local(each))), ...simd(OPERATIONS[value.kind])];
    }
  };
  const values = writes.map(([place, value]) => [place, local(value)] as const);
  for (const [place, value] of values) inside.push(...get(place), ...get(value), ...STORE);
  for (let place = 0; place < operands; place++)
    inside.push(...get(place), 0x41, STEP, ...ADD_I32, ...set(place));
  // The length becomes where the first operand ends.
  const end = [...get(0), ...get(length), ...ADD_I32, ...set(length)];
  const again = [...get(0), ...get(length), 0x49, 0x0d, 0];
  return { body: [...before, ...end, 0x03, 0x40, ...inside, ...again, 0x0b], locals };
}

function unsigned(value: number): number[] {
  const low = value & 0x7f;
  return value < 0x80 ? [low] : [low | 0x80, ...unsigned(value >>> 7)];
}

function list(items: readonly (readonly number[])[]): number[] {
  return [...unsigned(items.length), ...items.flat()];
}

function section(id: number, body: readonly number[]): number[] {
  return [id, ...unsigned(body.length), ...body];
}

function text(value: string): number[] {
  return [...unsigned(value.length), ...new TextEncoder().encode(value)];
}

function repeated(count: number, value: number): number[] {
  return Array.from({ length: count }, () => value);
}
