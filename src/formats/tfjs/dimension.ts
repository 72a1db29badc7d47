/**
 * Arithmetic on dimensions, some of which have a name in place of a number. Equal expressions give equal
 * names, so that two values whose sizes were computed in the same way are known to fit. Products of names
 * are kept in a normal form (`4*batch*height`), because Reshape multiplies and divides them.
 */
import type { Dimension, SymbolicShape } from "../../tensor/shape.js";

/** Names longer than this are replaced by a hash of themselves. */
const LONGEST_NAME = 48;

/**
 * A name for a dimension that is computed from others; the same arguments give the same name. It holds no `*`,
 * which would make a product of it.
 */
export function derived(kind: string, ...from: readonly Dimension[]): string {
  return shortened(`${kind}(${from.join(",")})`.replaceAll("*", "."));
}

/** The product of dimensions. */
export function product(dimensions: SymbolicShape): Dimension {
  const { factor, names } = factors(dimensions);
  if (names.length === 0 || factor === 0) return factor;
  return shortened([...(factor === 1 ? [] : [factor]), ...names].join("*"));
}

/** One product of dimensions divided by another; undefined when it does not come out even. */
export function quotient(dividend: SymbolicShape, divisor: SymbolicShape): Dimension | undefined {
  const above = factors(dividend);
  const below = factors(divisor);
  const names = [...above.names];
  for (const name of below.names) {
    const at = names.indexOf(name);
    if (at < 0) return undefined;
    names.splice(at, 1);
  }
  const factor = below.factor === 0 ? Number.NaN : above.factor / below.factor;
  return Number.isInteger(factor) ? product([factor, ...names]) : undefined;
}

/** The sum of two dimensions. */
export function sum(a: Dimension, b: Dimension): Dimension {
  if (typeof a === "number" && typeof b === "number") return a + b;
  if (a === 0) return b;
  return b === 0 ? a : derived("add", a, b);
}

/** The sum of any number of dimensions. */
export function total(dimensions: SymbolicShape): Dimension {
  return dimensions.reduce(sum, 0);
}

/** What two dimensions broadcast to; undefined when they are different numbers and neither is 1. */
export function broadcastDimension(a: Dimension, b: Dimension): Dimension | undefined {
  if (a === b || b === 1) return a;
  if (a === 1) return b;
  if (typeof a === "number") return typeof b === "number" ? undefined : a;
  return typeof b === "number" ? b : a;
}

/** What shapes broadcast to; undefined when they do not. */
export function broadcastShapes(...shapes: readonly SymbolicShape[]): SymbolicShape | undefined {
  const rank = Math.max(0, ...shapes.map((shape) => shape.length));
  const result: Dimension[] = [];
  for (let axis = 0; axis < rank; axis++) {
    let size: Dimension | undefined = 1;
    for (const shape of shapes) {
      const own: Dimension = shape[axis - rank + shape.length] ?? 1;
      size = size === undefined ? undefined : broadcastDimension(size, own);
    }
    if (size === undefined) return undefined;
    result.push(size);
  }
  return result;
}

/** Names for the open sizes of an input: the first axis is the batch, unless the shape is that of one image. */
export function nameOpenSizes(shape: SymbolicShape, prefix: string): Dimension[] {
  const isImage = shape.length === 3 && shape[0] === -1 && shape[1] === -1;
  const axes = isImage ? ["height", "width"] : shape.length === 4 ? ["batch", "height", "width"] : ["batch"];
  return shape.map((size, axis) => {
    if (size !== -1) return size;
    const name = axes[axis] ?? `axis_${axis}`;
    return name === "batch" ? name : `${prefix}${name}`;
  });
}

function factors(dimensions: SymbolicShape): { factor: number; names: string[] } {
  let factor = 1;
  const names: string[] = [];
  for (const part of dimensions.flatMap((each) => String(each).split("*"))) {
    if (/^-?\d+$/.test(part)) factor *= Number(part);
    else names.push(part);
  }
  return { factor, names: names.sort() };
}

/** The text, or a 52-bit FNV-style hash of it when it is long. */
function shortened(text: string): string {
  if (text.length <= LONGEST_NAME) return text;
  let [low, high] = [0x811c9dc5, 0x1b873593];
  for (let at = 0; at < text.length; at++) {
    low = Math.imul(low ^ text.charCodeAt(at), 0x01000193);
    high = Math.imul(high ^ text.charCodeAt(at), 0x85ebca6b);
  }
  return `d${(low >>> 0).toString(36)}${(high >>> 0).toString(36)}`;
}
