/** Operators that slide a window over an image, and those that resample it. */
import type { DType } from "../../tensor/dtype.js";
import type { Dimension, SymbolicShape } from "../../tensor/shape.js";
import { isSize, product, quotient, withAxis } from "./sizes.js";
import type { NodeView, Rule } from "./view.js";

interface Window {
  readonly kernel: readonly Dimension[];
  readonly strides: readonly number[];
  readonly dilations: readonly number[];
  /** Begins, then ends. */
  readonly pads: readonly number[];
  readonly autoPad: string;
}

/** Reads the attributes that all sliding windows have; undefined when they contradict the rank. */
function windowOf(view: NodeView, kernel: readonly Dimension[], rank: number): Window | undefined {
  const window: Window = {
    kernel,
    strides: view.ints("strides") ?? kernel.map(() => 1),
    dilations: view.ints("dilations") ?? kernel.map(() => 1),
    pads: view.ints("pads") ?? [...kernel, ...kernel].map(() => 0),
    autoPad: view.text("auto_pad", "NOTSET"),
  };
  const fits =
    kernel.length === rank &&
    window.strides.length === rank &&
    window.dilations.length === rank &&
    window.pads.length === 2 * rank &&
    [...window.strides, ...window.dilations].every((each) => isSize(each) && each > 0);
  return fits ? window : undefined;
}

/** How many places the window takes along each axis. */
function slide(view: NodeView, sizes: SymbolicShape, window: Window, ceil = false): Dimension[] {
  return sizes.map((size, axis) => {
    const kernel = window.kernel[axis];
    const stride = window.strides[axis] ?? 1;
    const dilation = window.dilations[axis] ?? 1;
    const before = window.pads[axis] ?? 0;
    const after = window.pads[axis + sizes.length] ?? 0;
    const isSame = window.autoPad.startsWith("SAME");
    if (typeof size === "string" || typeof kernel !== "number") {
      const setting = [size, isSame ? "same" : [kernel, before, after], stride, dilation, ceil];
      if (isSame && stride === 1) return size;
      if (kernel === 1 && stride === 1 && before + after === 0) return size;
      return view.unknown(JSON.stringify(["slide", setting]));
    }
    if (isSame) return Math.ceil(size / stride);
    const padding = window.autoPad === "VALID" ? 0 : before + after;
    const room = size + padding - dilation * (kernel - 1) - 1;
    if (room < 0) return view.unknown();
    if (!ceil) return Math.floor(room / stride) + 1;
    const places = Math.ceil(room / stride) + 1;
    // The last window must begin inside of the image or the padding before it.
    return (places - 1) * stride >= size + before ? places - 1 : places;
  });
}

/** A convolution of input 0 with the weights at `weights`. */
function convolution(view: NodeView, weights: number, dtype: DType | undefined): ReturnType<Rule> {
  const shape = view.shape();
  const filter = view.shape(weights);
  const channels = filter?.[0];
  if (!shape || shape.length < 3 || !filter || channels === undefined) return [{ dtype }];
  const [batch = 1, , ...sizes] = shape;
  const window = windowOf(view, view.ints("kernel_shape") ?? filter.slice(2), sizes.length);
  return [{ dtype, shape: window && [batch, channels, ...slide(view, sizes, window)] }];
}

const convTranspose: Rule = (view) => {
  const dtype = view.dtype();
  const shape = view.shape();
  const filter = view.shape(1);
  if (!shape || shape.length < 3 || !filter) return [{ dtype }];
  const [batch = 1, , ...sizes] = shape;
  const channels = product([filter[1] ?? 1, view.int("group", 1)]);
  const window = windowOf(view, view.ints("kernel_shape") ?? filter.slice(2), sizes.length);
  if (!window || channels === undefined) return [{ dtype }];
  const asked = view.ints("output_shape")?.slice(-sizes.length);
  const extra = view.ints("output_padding");
  const spatial = sizes.map((size, axis): Dimension => {
    const stride = window.strides[axis] ?? 1;
    const kernel = window.kernel[axis];
    const given = asked?.[axis];
    if (given !== undefined) return given;
    if (window.autoPad.startsWith("SAME")) return product([size, stride]) ?? view.unknown();
    if (typeof kernel !== "number") return view.unknown();
    const reach = (window.dilations[axis] ?? 1) * (kernel - 1) + 1;
    const padding =
      window.autoPad === "VALID" ? 0 : (window.pads[axis] ?? 0) + (window.pads[axis + sizes.length] ?? 0);
    const rest = reach - stride + (extra?.[axis] ?? 0) - padding;
    if (typeof size === "number") return size * stride + rest;
    return (rest === 0 ? product([size, stride]) : undefined) ?? view.unknown(`up ${size} ${stride} ${rest}`);
  });
  return [{ dtype, shape: [batch, channels, ...spatial] }];
};

const pool: Rule = (view) => {
  const shape = view.shape();
  const kernel = view.ints("kernel_shape");
  if (!shape || shape.length < 3 || !kernel) return [{ dtype: view.dtype() }, { dtype: "int64" }];
  const window = windowOf(view, kernel, shape.length - 2);
  const pooled = window && [
    ...shape.slice(0, 2),
    ...slide(view, shape.slice(2), window, view.int("ceil_mode", 0) !== 0),
  ];
  return [
    { dtype: view.dtype(), shape: pooled },
    { dtype: "int64", shape: pooled },
  ];
};

const globalPool: Rule = (view) => [
  { dtype: view.dtype(), shape: view.shape()?.map((size, axis) => (axis < 2 ? size : 1)) },
];

/** A rule for images whose channels stand before their sides; the others are not known. */
const channelsFirst =
  (rule: Rule): Rule =>
  (view) =>
    view.int("channels_last", 0) === 0 ? rule(view).slice(0, 1) : [{ dtype: view.dtype() }];

const roiPool: Rule = (view) => {
  const channels = view.shape()?.[1];
  const regions = view.shape(1)?.[0];
  const pooled = view.ints("pooled_shape") ?? [view.int("output_height", 1), view.int("output_width", 1)];
  const isKnown = channels !== undefined && regions !== undefined;
  return [{ dtype: view.dtype(), shape: isKnown ? [regions, channels, ...pooled] : undefined }];
};

const gridSample: Rule = (view) => {
  const shape = view.shape();
  const grid = view.shape(1);
  return [{ dtype: view.dtype(), shape: shape && grid && [...shape.slice(0, 2), ...grid.slice(1, -1)] }];
};

/** Depth to space makes channels into larger sides, space to depth the other way. */
const rearrange =
  (isUp: boolean): Rule =>
  (view) => {
    const dtype = view.dtype();
    const shape = view.shape();
    const block = view.int("blocksize", 0);
    const [batch, channels, height, width] = shape ?? [];
    if (shape?.length !== 4 || batch === undefined || channels === undefined || height === undefined)
      return [{ dtype }];
    const up = (size: Dimension, by: number) => product([size, by]) ?? view.unknown();
    const down = (size: Dimension, by: number) => quotient(size, by) ?? view.unknown(`down ${size} ${by}`);
    const sides = [height, width ?? 1].map((size) => (isUp ? up : down)(size, block));
    return [{ dtype, shape: [batch, (isUp ? down : up)(channels, block * block), ...sides] }];
  };

const resize: Rule = (view) => {
  const dtype = view.dtype();
  const shape = view.shape();
  if (!shape) return [{ dtype }];
  const isOld = view.opset < 11 || view.node.opType === "Upsample";
  const axes = view.ints("axes") ?? shape.map((_, axis) => axis);
  const scales = view.floats("scales") ?? (view.has(isOld ? 1 : 2) ? view.numbers(isOld ? 1 : 2) : undefined);
  const sizes = isOld ? undefined : view.items(3);
  const result = [...shape];
  if (sizes && sizes.length === axes.length) {
    const ratio = aspectRatio(view, shape, axes);
    axes.forEach((axis, place) => {
      const size = shape.at(axis);
      const isScaled = ratio !== undefined && typeof size === "number";
      const wanted = isScaled ? Math.round(size * ratio) : ratio === undefined ? sizes[place] : undefined;
      result[axis < 0 ? axis + shape.length : axis] = wanted ?? view.unknown();
    });
    return [{ dtype, shape: result }];
  }
  if (scales?.length !== axes.length) return [{ dtype, shape: view.unknowns(shape.length) }];
  axes.forEach((axis, place) => {
    const size = shape.at(axis) ?? 1;
    const scale = Math.fround(scales[place] ?? 1);
    result[axis < 0 ? axis + shape.length : axis] =
      typeof size === "number"
        ? Math.floor(Math.fround(size * scale))
        : ((Number.isInteger(scale) ? product([size, scale]) : undefined) ??
          view.unknown(`resize ${size} ${scale}`));
  });
  return [{ dtype, shape: result }];
};

/** The one scale of a Resize that keeps the aspect ratio; undefined when it does not, NaN when not known. */
function aspectRatio(view: NodeView, shape: SymbolicShape, axes: readonly number[]): number | undefined {
  const policy = view.text("keep_aspect_ratio_policy", "stretch");
  if (policy === "stretch") return undefined;
  const ratios = axes.map((axis, place) => Number(view.items(3)?.[place]) / Number(shape.at(axis)));
  return policy === "not_larger" ? Math.min(...ratios) : Math.max(...ratios);
}

const pad: Rule = (view) => {
  const dtype = view.dtype();
  const shape = view.shape();
  if (!shape) return [{ dtype }];
  const pads = view.ints("paddings") ?? view.list("pads", 1);
  const axes = view.has(3) ? view.numbers(3) : shape.map((_, axis) => axis);
  if (!pads || pads === "none" || pads.length !== 2 * (axes?.length ?? Number.NaN))
    return [{ dtype, shape: view.unknowns(shape.length) }];
  let result: SymbolicShape = shape;
  axes?.forEach((axis, place) => {
    const at = axis < 0 ? axis + shape.length : axis;
    const more = (pads[place] ?? 0) + (pads[place + axes.length] ?? 0);
    const size = shape[at];
    if (more === 0 || size === undefined) return;
    result = withAxis(
      result,
      at,
      typeof size === "number" ? size + more : view.unknown(`pad ${size} ${more}`),
    );
  });
  return [{ dtype, shape: result }];
};

const centerCropPad: Rule = (view) => {
  const shape = view.shape();
  const sizes = view.items(1);
  const axes = view.ints("axes") ?? shape?.map((_, axis) => axis) ?? [];
  if (!shape || sizes?.length !== axes.length) return [{ dtype: view.dtype() }];
  const wanted = new Map(
    axes.map((axis, place) => [axis < 0 ? axis + shape.length : axis, sizes[place] ?? view.unknown()]),
  );
  return [{ dtype: view.dtype(), shape: shape.map((size, axis) => wanted.get(axis) ?? size) }];
};

/** Rules of this file by operator. */
export const WINDOW: Readonly<Record<string, Rule>> = {
  Conv: (view) => convolution(view, 1, view.dtype()),
  FusedConv: (view) => convolution(view, 1, view.dtype()),
  ConvInteger: (view) => convolution(view, 1, "int32"),
  QLinearConv: (view) => convolution(view, 3, view.dtype(7)),
  ConvTranspose: convTranspose,
  MaxPool: pool,
  AveragePool: (view) => pool(view).slice(0, 1),
  LpPool: (view) => pool(view).slice(0, 1),
  QLinearAveragePool: channelsFirst(pool),
  GlobalAveragePool: globalPool,
  GlobalMaxPool: globalPool,
  GlobalLpPool: globalPool,
  QLinearGlobalAveragePool: channelsFirst(globalPool),
  MaxRoiPool: roiPool,
  RoiAlign: roiPool,
  GridSample: gridSample,
  DepthToSpace: rearrange(true),
  SpaceToDepth: rearrange(false),
  Resize: resize,
  Upsample: resize,
  Pad: pad,
  CenterCropPad: centerCropPad,
};
