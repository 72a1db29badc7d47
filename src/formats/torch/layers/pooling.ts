/**
 * Poolings. PyTorch's `ceil_mode` never lets a window begin behind the input's end, and its averages count padding but
 * not what ceil mode adds behind it; both are written out here, so that it is exact for every size.
 */
import type { Dimension } from "../../../tensor/shape.js";
import type { Value } from "../builder.js";
import { OpenSize } from "../layer.js";
import { type Call, type Rule, sizeAfter } from "../rule.js";
import { requirePositive } from "./convolution.js";
import { pad } from "./padding.js";

interface Window {
  readonly kernel: number[];
  readonly strides: number[];
  readonly padding: number[];
  readonly dilations: number[];
  readonly ceil: boolean;
  /** Sizes of the output after batch and channels. */
  readonly sizes: readonly Dimension[];
}

function window(call: Call, axes: number): Window {
  const { layer } = call;
  call.requireRank(axes + 2);
  if (layer.setting("kernel_size") === undefined)
    throw layer.wrong("kernel_size", "a whole number", undefined);
  const kernel = layer.ints("kernel_size", axes, 1);
  const strides = layer.ints("stride", axes, kernel);
  const padding = layer.ints("padding", axes, 0);
  const dilations = layer.ints("dilation", axes, 1);
  const wantsCeil = layer.flag("ceil_mode", false);
  const spatial = call.shape.slice(2);
  const room = kernel.map((size, at) => 2 * (padding[at] ?? 0) - (dilations[at] ?? 1) * (size - 1) - 1);
  /** Whether ceil mode gives one window more than floor mode, by axis; undefined where that depends on an open size. */
  const more = spatial.map((size, at) => {
    const [stride = 1, before = 0] = [strides[at], padding[at]];
    if (!wantsCeil) return false;
    if (typeof size === "string") return stride === 1 ? false : undefined;
    const count = Math.ceil((size + (room[at] ?? 0)) / stride) + 1;
    const isInside = (count - 1) * stride < size + before;
    return isInside && count > Math.floor((size + (room[at] ?? 0)) / stride) + 1;
  });
  // With open sizes ONNX's ceil mode is the same where no window can begin behind the input.
  const isSafe = strides.every((stride, at) => stride <= (padding[at] ?? 0) - (room[at] ?? 0));
  if (more.includes(undefined) && !isSafe) throw new OpenSize(layer, "rounds its size up");
  const ceil = wantsCeil && more.some((each) => each !== false);
  const asCeil = (at: number) => typeof spatial[at] === "number" && (more[at] ?? false);
  if (ceil && spatial.some((size, at) => typeof size === "number" && !asCeil(at) && dropsWindow(at)))
    throw layer.unsupported("rounds the size of one axis up and drops a window on another");
  function dropsWindow(at: number): boolean {
    const [size, stride = 1] = [spatial[at], strides[at]];
    return typeof size === "number" && (size + (room[at] ?? 0)) % stride !== 0;
  }
  const sizes = spatial.map((size, at) => {
    const stride = strides[at] ?? 1;
    const steps = (known: number) =>
      Math.floor((known + (room[at] ?? 0)) / stride) + 1 + (asCeil(at) ? 1 : 0);
    return sizeAfter(size, steps, stride === 1 && room[at] === -1);
  });
  requirePositive(layer, sizes);
  return { kernel, strides, padding, dilations, ceil, sizes };
}

function pooled(call: Call, sizes: readonly Dimension[]): Dimension[] {
  return [...call.shape.slice(0, 2), ...sizes];
}

/** Largest value of each window over `axes` axes. */
function maxPool(axes: number): Rule {
  return {
    expects: () => ({ rank: axes + 2 }),
    keeps: "channels",
    apply(call) {
      if (call.layer.flag("return_indices", false))
        throw call.layer.unsupported("returns indices beside its values");
      const { kernel, strides, padding, dilations, ceil, sizes } = window(call, axes);
      return call.op(
        "MaxPool",
        [call.input],
        {
          kernel_shape: kernel,
          strides,
          dilations,
          pads: [...padding, ...padding],
          ceil_mode: Number(ceil),
        },
        pooled(call, sizes),
      );
    },
  };
}

/** Mean of each window over `axes` axes. */
function averagePool(axes: number): Rule {
  return {
    expects: () => ({ rank: axes + 2 }),
    keeps: "channels",
    apply(call) {
      const { layer } = call;
      const { kernel, strides, padding, ceil, sizes } = window(call, axes);
      const divisor = layer.setting("divisor_override") === undefined ? 0 : layer.int("divisor_override", 1);
      const counts = layer.flag("count_include_pad", true) || divisor > 0;
      if (divisor > 0 && ceil) throw layer.unsupported("has a divisor of its own and rounds its size up");
      // Zeros around the input are then a part of it, what ceil mode adds behind them is not.
      const around = counts ? padding : padding.map(() => 0);
      const input = pad(call, call.input, { before: around, after: around, mode: "constant", value: 0 });
      const pads = counts ? padding.map(() => 0) : padding;
      const mean = call.op(
        "AveragePool",
        [input],
        { kernel_shape: kernel, strides, pads: [...pads, ...pads], ceil_mode: Number(ceil) },
        pooled(call, sizes),
      );
      if (divisor === 0) return mean;
      return call.withNumber("Mul", mean, kernel.reduce((product, size) => product * size, 1) / divisor);
    },
  };
}

/** Root of the sum of each window's powers, for positive sums, as PyTorch defines it. */
function powerPool(axes: number): Rule {
  return {
    expects: () => ({ rank: axes + 2 }),
    keeps: "channels",
    apply(call) {
      const { kernel, strides, ceil, sizes } = window(call, axes);
      if (ceil) throw call.layer.unsupported("rounds its size up");
      const power = call.layer.number("norm_type", 2);
      const raised = call.withNumber("Pow", call.input, power);
      const mean = call.op("AveragePool", [raised], { kernel_shape: kernel, strides }, pooled(call, sizes));
      const sum = call.withNumber(
        "Mul",
        call.op("Relu", [mean], {}, mean.shape),
        kernel.reduce((product, size) => product * size, 1),
      );
      return call.withNumber("Pow", sum, 1 / power);
    },
  };
}

/** Mean or largest value of windows that cut each axis into a given number of parts. */
function adaptivePool(axes: number, kind: "mean" | "max"): Rule {
  return {
    expects: () => ({ rank: axes + 2 }),
    keeps: "channels",
    apply(call) {
      const { layer } = call;
      call.requireRank(axes + 2);
      if (layer.flag("return_indices", false)) throw layer.unsupported("returns indices beside its values");
      const given = layer.setting("output_size");
      const wanted =
        Array.isArray(given) && given.length === axes
          ? given
          : Array(axes).fill(Array.isArray(given) ? given[0] : given);
      const targets = wanted.map((size: unknown) => (size === null || size === undefined ? undefined : size));
      if (targets.every((size) => size === 1))
        return call.op(
          kind === "mean" ? "GlobalAveragePool" : "GlobalMaxPool",
          [call.input],
          {},
          pooled(
            call,
            targets.map(() => 1),
          ),
        );
      return targets.reduce<Value>((value, size, at) => {
        if (size === undefined) return value;
        if (typeof size !== "number" || !Number.isSafeInteger(size) || size < 1 || size > LARGEST_OUTPUT)
          throw layer.wrong("output_size", `whole numbers from 1 to ${LARGEST_OUTPUT}`, given);
        return adaptAxis(call, value, at + 2, size, kind);
      }, call.input);
    },
  };
}

/** More parts than this are not written out. */
const LARGEST_OUTPUT = 256;

/** One axis cut into parts: part i goes from floor(i n / parts) to before ceil((i + 1) n / parts). */
function adaptAxis(call: Call, value: Value, axis: number, parts: number, kind: "mean" | "max"): Value {
  const size = call.knownSize(axis, `pools to ${parts} parts`);
  if (size === parts) return value;
  const shape = value.shape.with(axis, parts);
  const bounds = Array.from({ length: parts }, (_, part) => [
    Math.floor((part * size) / parts),
    Math.ceil(((part + 1) * size) / parts),
  ]);
  const pieces = bounds.map(([from = 0, to = 0]) => {
    const length = to - from;
    const piece = call.op(
      "Slice",
      [value, call.ints([from]), call.ints([to]), call.ints([axis])],
      {},
      value.shape.with(axis, length),
    );
    return call.op(
      kind === "mean" ? "ReduceMean" : "ReduceMax",
      [piece],
      { axes: [axis], keepdims: 1 },
      value.shape.with(axis, 1),
    );
  });
  return call.op("Concat", pieces, { axis }, shape);
}

/** Rules by the names of the layers. */
export const POOLING_RULES: readonly (readonly [kind: string, rule: Rule])[] = [1, 2, 3].flatMap((axes) => [
  [`MaxPool${axes}d`, maxPool(axes)] as const,
  [`AvgPool${axes}d`, averagePool(axes)] as const,
  [`AdaptiveAvgPool${axes}d`, adaptivePool(axes, "mean")] as const,
  [`AdaptiveMaxPool${axes}d`, adaptivePool(axes, "max")] as const,
  ...(axes < 3 ? [[`LPPool${axes}d`, powerPool(axes)] as const] : []),
]);
