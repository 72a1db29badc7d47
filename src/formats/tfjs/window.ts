/** Geometry of sliding windows: padding and output sizes of convolutions and poolings. */
import type { AttributeValue } from "../../onnx/model.js";
import type { Dimension, SymbolicShape } from "../../tensor/shape.js";
import type { Attributes } from "./attributes.js";
import { derived } from "./dimension.js";
import { malformed } from "./json.js";
import { unsupported } from "./unsupported.js";

/** How a window slides over the spatial axes. */
export interface Window {
  readonly kernel: readonly number[];
  readonly strides: readonly number[];
  readonly dilations: readonly number[];
  readonly padding: string;
  /** For padding EXPLICIT: before and after, for each spatial axis. */
  readonly explicit: readonly (readonly [number, number])[];
}

/** Whether the spatial axes stand behind the channels. */
export function isChannelsFirstFormat(attributes: Attributes): boolean {
  return /^NC[DHW]+$/i.test(attributes.text("data_format", "NHWC"));
}

/**
 * Reads strides, dilations and padding.
 * @param kernel sizes of the window
 * @throws PolyheadError MODEL_MALFORMED
 */
export function readWindow(attributes: Attributes, kernel: readonly number[]): Window {
  const first = isChannelsFirstFormat(attributes) ? 2 : 1;
  const spatial = (values: readonly number[] | undefined) =>
    kernel.map((_, axis) => positive(values?.[axis + first] ?? 1));
  const margins = attributes.ints("explicit_paddings") ?? [];
  return {
    kernel,
    strides: spatial(attributes.ints("strides")),
    dilations: spatial(attributes.ints("dilations")),
    padding: attributes.text("padding", "VALID").toUpperCase(),
    explicit: kernel.map((_, axis) => [
      margins[2 * (axis + first)] ?? 0,
      margins[2 * (axis + first) + 1] ?? 0,
    ]),
  };
}

/** Sizes of the window as the attribute `ksize` states them. */
export function readKernelSize(attributes: Attributes, spatialRank: number): number[] {
  const first = isChannelsFirstFormat(attributes) ? 2 : 1;
  const sizes = attributes.ints("ksize") ?? [];
  return Array.from({ length: spatialRank }, (_, axis) => positive(sizes[axis + first] ?? 1));
}

/** Output sizes of a window over the spatial axes, and the attributes that say so in ONNX. */
export function slide(
  input: SymbolicShape,
  window: Window,
): { output: Dimension[]; attributes: Readonly<Record<string, AttributeValue>> } {
  const axes = window.kernel.map((kernel, axis) => {
    const stride = window.strides[axis] ?? 1;
    const extent = (kernel - 1) * (window.dilations[axis] ?? 1) + 1;
    return { size: input[axis] ?? 1, stride, extent, margins: window.explicit[axis] ?? [0, 0] };
  });
  const shape = { kernel_shape: window.kernel, strides: window.strides, dilations: window.dilations };

  if (window.padding === "SAME") {
    const output = axes.map(({ size, stride }) => ceilDivide(size, stride));
    if (axes.some(({ size, stride, extent }) => typeof size === "string" && stride > 1 && extent > 1)) {
      return { output, attributes: { ...shape, auto_pad: "SAME_UPPER" } };
    }
    const pads = axes.map(({ size, stride, extent }) => samePadding(size, stride, extent));
    return {
      output,
      attributes: { ...shape, pads: [...pads.map(([before]) => before), ...pads.map(([, after]) => after)] },
    };
  }
  if (window.padding !== "VALID" && window.padding !== "EXPLICIT")
    throw unsupported(`padding ${window.padding}`);

  const pads = axes.map(({ margins }) => (window.padding === "EXPLICIT" ? margins : ([0, 0] as const)));
  const output = axes.map(({ size, stride, extent }, axis) => {
    const [before, after] = pads[axis] ?? [0, 0];
    if (typeof size === "string") return derived("slide", size, before + after - extent, stride);
    const room = size + before + after - extent;
    if (room < 0) throw malformed(`A window of ${extent} does not fit into ${size + before + after}.`);
    return Math.floor(room / stride) + 1;
  });
  return {
    output,
    attributes: { ...shape, pads: [...pads.map(([before]) => before), ...pads.map(([, after]) => after)] },
  };
}

/** Padding before and after that makes the output as long as the input divided by the stride, rounded up. */
export function samePadding(size: Dimension, stride: number, extent: number): readonly [number, number] {
  if (extent === 1) return [0, 0];
  const covered =
    typeof size === "number" ? (Math.ceil(size / stride) - 1) * stride + extent - size : extent - 1;
  const margin = Math.max(covered, 0);
  return [Math.floor(margin / 2), Math.ceil(margin / 2)];
}

function ceilDivide(size: Dimension, divisor: number): Dimension {
  if (divisor === 1) return size;
  return typeof size === "number" ? Math.ceil(size / divisor) : derived("ceil", size, divisor);
}

function positive(value: number): number {
  if (value >= 1 && value < 2 ** 31) return value;
  throw malformed(`A window has stride, dilation or size ${value}; expected at least 1.`, { value });
}
