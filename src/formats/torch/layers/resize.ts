/** `Upsample` and its two short forms: resizing of maps by a factor or to a size. */
import type { Dimension } from "../../../tensor/shape.js";
import { type Call, OPEN, type Rule } from "../rule.js";

const MODES = ["nearest", "nearest-exact", "linear", "bilinear", "bicubic", "trilinear"] as const;

function resize(fixed: Readonly<Record<string, unknown>> = {}, rank?: number): Rule {
  return {
    keeps: "channels",
    ...(rank !== undefined && { expects: () => ({ rank }) }),
    apply: (call) => upsample(call, fixed),
  };
}

function upsample(call: Call, fixed: Readonly<Record<string, unknown>>) {
  const { layer } = call;
  const mode = MODES.find((each) => each === fixed.mode) ?? layer.word("mode", MODES, "nearest");
  const axes = call.rank - 2;
  const corners = layer.setting("align_corners") ?? fixed.align_corners ?? false;
  const target = layer.setting("size");
  const isNearest = mode.startsWith("nearest");
  const attributes = {
    mode: isNearest ? "nearest" : mode === "bicubic" ? "cubic" : "linear",
    coordinate_transformation_mode:
      mode === "nearest" ? "asymmetric" : corners === true ? "align_corners" : "half_pixel",
    ...(isNearest && { nearest_mode: mode === "nearest" ? "floor" : "round_prefer_ceil" }),
    ...(mode === "bicubic" && { cubic_coeff_a: { float: -0.75 } }),
  };
  const head = call.shape.slice(0, 2);
  if (target !== undefined) {
    const sizes = layer.ints("size", axes, 1);
    // Batch and channels as they are, whatever they are at run time.
    const own = call.op(
      "Slice",
      [call.op("Shape", [call.input], {}, [call.rank]), call.ints([0]), call.ints([2])],
      {},
      [2],
    );
    const all = call.op("Concat", [own, call.ints(sizes)], { axis: 0 }, [call.rank]);
    return call.op("Resize", [call.input, undefined, undefined, all], attributes, [...head, ...sizes]);
  }
  const factors = scales(call, axes);
  const shape: Dimension[] = call.shape
    .slice(2)
    .map((size, at) => (typeof size === "number" ? Math.floor(size * (factors[at] ?? 1)) : OPEN));
  const scale = call.floats([call.rank], [1, 1, ...factors]);
  return call.op("Resize", [call.input, undefined, scale], attributes, [...head, ...shape]);
}

function scales(call: Call, axes: number): number[] {
  const given = call.layer.setting("scale_factor");
  const list = Array.isArray(given) ? given : Array(axes).fill(given);
  if (list.length === axes && list.every((each) => typeof each === "number" && each > 0)) return list;
  throw call.layer.wrong("scale_factor", `a positive number or ${axes} of them, or a size`, given);
}

/** Rules by the names of the layers. */
export const RESIZE_RULES: readonly (readonly [kind: string, rule: Rule])[] = [
  ["Upsample", resize()],
  ["UpsamplingNearest2d", resize({ mode: "nearest" }, 4)],
  ["UpsamplingBilinear2d", resize({ mode: "bilinear", align_corners: true }, 4)],
];
