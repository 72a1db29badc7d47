/**
 * Resize and Pad are linear along each axis for itself: y = M x with a matrix that the attributes say. The gradient
 * is M^T dy, axis by axis.
 */
import type { Context, Rule } from "../context.js";

/** Row i says which elements of x make element i of y, and with which weight. */
type Matrix = number[][];

const transposed = (matrix: Matrix, columns: number): Matrix =>
  Array.from({ length: columns }, (_, j) => matrix.map((row) => row[j] ?? 0));

const zeros = (count: number): number[] => new Array<number>(count).fill(0);

/** dy through the transposed matrices of all axes that are not left as they are. */
function backThrough(c: Context, dy: string, matrices: ReadonlyMap<number, Matrix>): string {
  let gradient = dy;
  const shape = [...c.outputShape()];
  for (const [axis, matrix] of matrices) {
    const size = c.shape()[axis] ?? 1;
    gradient = c.alongAxis(gradient, shape, axis, transposed(matrix, size));
    shape[axis] = size;
  }
  return gradient;
}

/** The factors of all axes: given, or what sizes make of them. */
function scalesOf(c: Context): number[] {
  const [from, to] = [c.shape(), c.outputShape()];
  const given = c.has(2) && c.shape(2)[0] !== 0 ? c.numbers(2) : [];
  const axes = c.ints("axes") ?? from.map((_, axis) => axis);
  return from.map((size, axis) => {
    const place = axes.findIndex((each) => (each < 0 ? each + from.length : each) === axis);
    return given[place] ?? (to[axis] ?? 1) / size;
  });
}

/** Where in x the element `at` of y lies, as the standard defines it for each mode. */
function sourceOf(mode: string, at: number, scale: number, from: number, to: number): number {
  switch (mode) {
    case "align_corners":
      return to === 1 ? 0 : (at * (from - 1)) / (to - 1);
    case "asymmetric":
      return at / scale;
    case "pytorch_half_pixel":
      return to > 1 ? (at + 0.5) / scale - 0.5 : 0;
    case "half_pixel_symmetric": {
      const adjustment = to / (scale * from);
      return (from / 2) * (1 - adjustment) + (at + 0.5) / scale - 0.5;
    }
    default:
      return (at + 0.5) / scale - 0.5;
  }
}

const NEAREST: Readonly<Record<string, (x: number) => number>> = {
  round_prefer_floor: (x) => Math.ceil(x - 0.5),
  round_prefer_ceil: (x) => Math.floor(x + 0.5),
  floor: Math.floor,
  ceil: Math.ceil,
};

/** Weights of the four neighbours of a place at distance t behind the second (Keys, 1981). */
function cubicWeights(t: number, a: number): number[] {
  const near = (x: number) => (a + 2) * x ** 3 - (a + 3) * x ** 2 + 1;
  const far = (x: number) => a * x ** 3 - 5 * a * x ** 2 + 8 * a * x - 4 * a;
  return [far(1 + t), near(t), near(1 - t), far(2 - t)];
}

function resizeMatrix(c: Context, from: number, to: number, scale: number): Matrix {
  const mode = c.text("mode", "nearest");
  const coordinates = c.text("coordinate_transformation_mode", "half_pixel");
  const inside = (place: number) => Math.min(from - 1, Math.max(0, place));
  return Array.from({ length: to }, (_, at) => {
    const row = zeros(from);
    const source = sourceOf(coordinates, at, scale, from, to);
    const put = (place: number, share: number) => {
      row[inside(place)] = (row[inside(place)] ?? 0) + share;
    };
    if (mode === "nearest") {
      put((NEAREST[c.text("nearest_mode", "round_prefer_floor")] ?? Math.floor)(source), 1);
    } else if (mode === "linear") {
      const clamped = inside(source);
      const low = Math.floor(clamped);
      put(low, 1 - (clamped - low));
      put(low + 1, clamped - low);
    } else {
      const low = Math.floor(source);
      const weights = cubicWeights(source - low, c.float("cubic_coeff_a", -0.75));
      const isExcluded = (place: number) =>
        c.int("exclude_outside", 0) !== 0 && (low - 1 + place < 0 || low - 1 + place >= from);
      const used = weights.map((share, place) => (isExcluded(place) ? 0 : share));
      const all = used.reduce((sum, share) => sum + share, 0);
      used.forEach((share, place) => {
        put(low - 1 + place, share / all);
      });
    }
    return row;
  });
}

const resize: Rule = (c, dy) => [
  () => {
    const [from, to, scales] = [c.shape(), c.outputShape(), scalesOf(c)];
    // ONNX Runtime copies where no size changes, whatever the scales say.
    if (from.every((size, axis) => size === to[axis])) return dy;
    const matrices = from.flatMap((size, axis) =>
      size === to[axis] && scales[axis] === 1
        ? []
        : [[axis, resizeMatrix(c, size, to[axis] ?? 1, scales[axis] ?? 1)] as const],
    );
    return backThrough(c, dy, new Map(matrices));
  },
];

/** What has no matrix here. */
export function refusesResize(attribute: (name: string) => string): string | undefined {
  if (attribute("coordinate_transformation_mode") === "tf_crop_and_resize") return "it crops";
  if (attribute("antialias") === "1") return "it smooths (antialias)";
  const policy = attribute("keep_aspect_ratio_policy");
  return policy === "" || policy === "stretch" ? undefined : `its policy is ${policy}`;
}

const pad: Rule = (c, dy) => [
  () => {
    const [from, to] = [c.shape(), c.outputShape()];
    const given = c.numbers(1);
    const rank = from.length;
    const axes = c.has(3) ? c.numbers(3) : from.map((_, axis) => axis);
    const begins = zeros(rank);
    axes.forEach((axis, place) => {
      begins[axis < 0 ? axis + rank : axis] = given[place] ?? 0;
    });
    const mode = c.text("mode", "constant");
    if (mode === "constant") {
      const back = from.map((size, axis) => size - (to[axis] ?? 0) + (begins[axis] ?? 0));
      return c.builder.pad(dy, [...begins.map((begin) => (begin === 0 ? 0 : -begin)), ...back]);
    }
    const matrices = from.flatMap((size, axis) =>
      size === to[axis] ? [] : [[axis, padMatrix(mode, size, to[axis] ?? 0, begins[axis] ?? 0)] as const],
    );
    return backThrough(c, dy, new Map(matrices));
  },
];

/** Every element of y is one of x. */
function padMatrix(mode: string, from: number, to: number, begin: number): Matrix {
  return Array.from({ length: to }, (_, at) => {
    const row = zeros(from);
    row[paddedFrom(mode, at - begin, from)] = 1;
    return row;
  });
}

function paddedFrom(mode: string, place: number, size: number): number {
  if (mode === "edge") return Math.min(size - 1, Math.max(0, place));
  if (mode === "wrap") return ((place % size) + size) % size;
  const period = Math.max(1, 2 * (size - 1));
  const inPeriod = ((place % period) + period) % period;
  return Math.min(inPeriod, period - inPeriod);
}

/** Rules of the standard operator set. */
export const RESAMPLING: Readonly<Record<string, Rule>> = {
  Pad: pad,
  Resize: resize,
};
