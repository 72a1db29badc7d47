/** Cases for every gradient rule: shapes, attributes and values that fit the operator. */
import fc from "fast-check";
import { float } from "../../../src/onnx/model.js";
import type { Shape } from "../../../src/tensor/shape.js";
import { tensor } from "../../../src/tensor/tensor.js";
import { floats } from "../../../src/train/autodiff/builder.js";
import { type Case, ints, noise, seed, values } from "./finite-differences.js";

type Cases = fc.Arbitrary<Case>;

const side = (max = 4) => fc.integer({ min: 1, max });
const shape = (min = 1, max = 4) => fc.array(side(3), { minLength: min, maxLength: max });
/** A smooth or kinked function of one value, on a range that avoids poles. */
const unary = (
  opType: string,
  low = -2,
  high = 2,
  more: Partial<Case> & { settings?: fc.Arbitrary<NonNullable<Case["attributes"]>> } = {},
): Cases => {
  const { settings = fc.constant({}), ...rest } = more;
  return fc
    .tuple(shape(1, 3), seed, settings)
    .map(([of, at, attributes]) => ({ opType, inputs: [values(of, at, low, high)], attributes, ...rest }));
};
const single = { dtype: "float32" } as const;
const alpha = (from: number, to: number) =>
  fc.double({ min: from, max: to, noNaN: true }).map((value) => ({ alpha: float(value) }));

/** Two shapes that broadcast, and what they make. */
const broadcast = fc
  .tuple(
    shape(1, 4),
    fc.array(fc.boolean(), { minLength: 4, maxLength: 4 }),
    fc.integer({ min: 0, max: 4 }),
    fc.boolean(),
  )
  .map(([full, ones, cut, swap]) => {
    const small = full.map((size, axis) => (ones[axis] ? 1 : size)).slice(Math.min(cut, full.length));
    return (swap ? [small, full] : [full, small]) as [Shape, Shape];
  });
const binary = (
  opType: string,
  ranges: readonly [number, number][] = [
    [-2, 2],
    [-2, 2],
  ],
  more: Partial<Case> = {},
): Cases =>
  fc.tuple(broadcast, seed).map(([[a, b], at]) => ({
    opType,
    inputs: [values(a, at, ...(ranges[0] ?? [-2, 2])), values(b, at + 1, ...(ranges[1] ?? [-2, 2]))],
    ...more,
  }));
/** Operators over any number of inputs. */
const variadic = (opType: string): Cases =>
  fc.tuple(broadcast, fc.integer({ min: 1, max: 3 }), seed).map(([[a, b], count, at]) => ({
    opType,
    // Ranges a little apart, so that no two elements are equal.
    inputs: [a, b, a]
      .slice(0, count)
      .map((each, place) => values(each, at + place, -2 + place / 97, 2 + place / 97)),
  }));

const reduction = (opType: string, low = -2, high = 2, more: Partial<Case> = {}): Cases =>
  fc
    .tuple(shape(1, 4), fc.array(fc.nat(3), { maxLength: 3 }), fc.boolean(), fc.boolean(), seed)
    .map(([of, chosen, keep, negative, at]) => {
      const axes = [...new Set(chosen.map((axis) => axis % of.length))].map((axis) =>
        negative ? axis - of.length : axis,
      );
      return {
        opType,
        inputs: [values(of, at, low, high), ...(axes.length > 0 ? [ints(axes)] : [])],
        attributes: { keepdims: keep ? 1 : 0 },
        ...more,
      };
    });

/** Windows over one or two axes: sizes that leave at least one place. */
const windows = (options: { dilated?: boolean; ceil?: boolean; automatic?: boolean } = {}) =>
  fc
    .array(
      fc.record({
        kernel: side(3),
        stride: side(3),
        dilation: options.dilated === false ? fc.constant(1) : side(2),
        begin: fc.nat(2),
        end: fc.nat(2),
        more: fc.nat(5),
      }),
      { minLength: 1, maxLength: 2 },
    )
    .chain((axes) =>
      fc
        .constantFrom("NOTSET", ...(options.automatic === false ? [] : ["SAME_UPPER", "SAME_LOWER", "VALID"]))
        .map((autoPad) => {
          // ONNX Runtime takes no dilation beside SAME, nor strides beyond the window.
          const isPlain = axes.every(({ kernel, stride, dilation }) => dilation === 1 && stride <= kernel);
          const reach = axes.map(({ kernel, dilation }) => (kernel - 1) * dilation + 1);
          // Padding less than the window, as runtimes demand of poolings.
          const pads = [
            ...axes.map(({ begin, kernel }) => Math.min(begin, kernel - 1)),
            ...axes.map(({ end, kernel }) => Math.min(end, kernel - 1)),
          ];
          return {
            sizes: axes.map(({ more }, axis) => (reach[axis] ?? 1) + more),
            kernel: axes.map(({ kernel }) => kernel),
            attributes: {
              kernel_shape: axes.map(({ kernel }) => kernel),
              strides: axes.map(({ stride }) => stride),
              ...(options.dilated === false ? {} : { dilations: axes.map(({ dilation }) => dilation) }),
              ...(autoPad === "NOTSET" || !(isPlain || autoPad === "VALID")
                ? { pads }
                : { auto_pad: autoPad }),
            },
          };
        }),
    );

/**
 * Whether the last window begins inside the image or the padding before it when places are rounded up. Where it does
 * not, ONNX's shapes count a window that ONNX Runtime leaves out.
 */
function endsInside(
  sizes: Shape,
  attributes: { kernel_shape: Shape; strides: Shape; dilations?: Shape; pads?: Shape },
): boolean {
  return sizes.every((size, axis) => {
    const { kernel_shape, strides, dilations, pads } = attributes;
    const [stride, begin] = [strides[axis] ?? 1, pads?.[axis] ?? 0];
    const reach = ((kernel_shape[axis] ?? 1) - 1) * (dilations?.[axis] ?? 1) + 1;
    const room = size + begin + (pads?.[axis + sizes.length] ?? 0) - reach;
    return Math.ceil(room / stride) * stride < size + begin;
  });
}

const pool = (
  opType: string,
  options: Parameters<typeof windows>[0] = {},
  settings: fc.Arbitrary<object> = fc.constant({}),
  more: Partial<Case> = {},
): Cases =>
  fc
    .tuple(windows(options), side(2), side(3), settings, seed)
    .map(([{ sizes, attributes }, images, channels, given, at]) => ({
      opType,
      inputs: [values([images, channels, ...sizes], at)],
      attributes: {
        ...attributes,
        ...given,
        ...(endsInside(sizes, attributes) ? {} : { ceil_mode: 0 }),
      },
      ...more,
    }));

/** Maxima of windows that share no element have a formulation of their own, in float32. */
const windowsApart: Cases = fc
  .tuple(
    fc.array(fc.record({ kernel: side(3), gap: fc.nat(2), begin: fc.nat(2), more: fc.nat(5) }), {
      minLength: 1,
      maxLength: 2,
    }),
    side(2),
    side(3),
    seed,
  )
  .map(([axes, images, channels, at]) => ({
    opType: "MaxPool",
    // Far from each other, so that a step makes no other element the maximum.
    inputs: [values([images, channels, ...axes.map(({ kernel, more }) => kernel + more)], at, -999, 999)],
    attributes: {
      kernel_shape: axes.map(({ kernel }) => kernel),
      strides: axes.map(({ kernel, gap }) => kernel + gap),
      pads: [
        ...axes.map(({ kernel, begin }) => Math.min(begin, kernel - 1)),
        ...axes.map(({ kernel, begin }) => Math.min(begin, kernel - 1)),
      ],
    },
    ...single,
    step: 1,
  }));

/** Linear in input and weights, so that a long step is exact. */
const exact = { dtype: "float32", step: 1, tolerance: 2e-5 } as const;

const convolution: Cases = fc
  .tuple(windows(), side(3), side(2), side(2), side(3), fc.boolean(), seed)
  .map(([{ sizes, kernel, attributes }, images, group, own, filters, bias, at]) => ({
    opType: "Conv",
    inputs: [
      values([images, group * own, ...sizes], at),
      values([group * filters, own, ...kernel], at + 1),
      ...(bias ? [values([group * filters], at + 2)] : []),
    ],
    attributes: { ...attributes, group },
    ...exact,
  }));

/** Enough channels for the formulation by products of matrices. */
const wideConvolution: Cases = fc
  .tuple(windows({ automatic: false }), side(3), fc.integer({ min: 16, max: 18 }), side(3), seed)
  .map(([{ sizes, kernel, attributes }, images, channels, filters, at]) => ({
    opType: "Conv",
    inputs: [values([images, channels, ...sizes], at), values([filters, channels, ...kernel], at + 1)],
    attributes: { ...attributes, strides: kernel.map(() => 1) },
    ...exact,
  }));

const depthwise: Cases = fc
  .tuple(windows({ automatic: false }), side(3), fc.integer({ min: 2, max: 5 }), side(2), seed)
  .map(([{ sizes, kernel, attributes }, images, channels, multiplier, at]) => ({
    opType: "Conv",
    inputs: [values([images, channels, ...sizes], at), values([channels * multiplier, 1, ...kernel], at + 1)],
    attributes: { ...attributes, group: channels },
    ...exact,
  }));

const transposed: Cases = fc
  .tuple(windows(), side(2), side(2), side(2), side(2), fc.nat(1), seed)
  .map(([{ kernel, attributes }, images, group, own, filters, extra, at]) => {
    const strides = attributes.strides;
    return {
      opType: "ConvTranspose",
      inputs: [
        values([images, group * own, ...kernel.map((_, axis) => 3 + axis)], at),
        values([group * own, filters, ...kernel], at + 1),
        values([group * filters], at + 2),
      ],
      attributes: {
        ...attributes,
        group,
        ...("auto_pad" in attributes
          ? {}
          : { output_padding: strides.map((stride) => Math.min(extra, stride - 1)) }),
      },
      ...exact,
    };
  });

const matrices: Cases = fc
  .tuple(
    side(3),
    side(3),
    side(3),
    shape(0, 2),
    fc.constantFrom("full", "left", "right", "vector", "both"),
    seed,
  )
  .map(([rows, inner, columns, batch, form, at]) => {
    const forms: Record<string, [Shape, Shape]> = {
      full: [
        [...batch, rows, inner],
        [...batch, inner, columns],
      ],
      left: [
        [...batch, rows, inner],
        [inner, columns],
      ],
      right: [
        [rows, inner],
        [...batch, inner, columns],
      ],
      vector: [[inner], [...batch, inner, columns]],
      both: [[...batch, rows, inner], [inner]],
    };
    const [a = [], b = []] = forms[form] ?? [];
    return { opType: "MatMul", inputs: [values(a, at), values(b, at + 1)] };
  });

const gemm: Cases = fc
  .tuple(
    side(3),
    side(3),
    side(3),
    fc.boolean(),
    fc.boolean(),
    fc.constantFrom<Shape | undefined>(undefined, [], [1], [3, 1]),
    seed,
  )
  .map(([rows, inner, columns, transA, transB, c, at]) => ({
    opType: "Gemm",
    inputs: [
      values(transA ? [inner, rows] : [rows, inner], at),
      values(transB ? [columns, inner] : [inner, columns], at + 1),
      ...(c ? [values(c.length === 2 ? [rows, 1] : c, at + 2)] : []),
    ],
    attributes: {
      transA: transA ? 1 : 0,
      transB: transB ? 1 : 0,
      alpha: float(0.5),
      beta: float(1.5),
    },
  }));

const einsum: Cases = fc
  .tuple(
    fc.constantFrom(
      "ij,jk->ik",
      "bij,bjk->bik",
      "i,j->ij",
      "bhid,bhjd->bhij",
      "ij->ji",
      "ij->i",
      "ij,ij->",
      "abc,cd,b->ad",
      "ij,jk",
    ),
    seed,
  )
  .map(([equation, at]) => {
    const sizes = new Map([..."abcdhijk"].map((letter, place) => [letter, 2 + ((place + at) % 2)]));
    const terms = (equation.split("->")[0] ?? "").split(",");
    return {
      opType: "Einsum",
      inputs: terms.map((term, place) =>
        values(
          [...term].map((letter) => sizes.get(letter) ?? 1),
          at + place,
        ),
      ),
      attributes: { equation },
    };
  });

/** An input over a whole layer and two parameters. */
const norm = (
  opType: string,
  parameters: (of: Shape) => Shape,
  settings: (of: Shape) => NonNullable<Case["attributes"]>,
  more: Partial<Case> = {},
): Cases =>
  fc
    .tuple(fc.tuple(side(2), fc.constantFrom(2, 4), fc.integer({ min: 2, max: 3 }), side(3)), seed)
    .map(([of, at]) => ({
      opType,
      inputs: [values(of, at), values(parameters(of), at + 1, 0.5, 2), values(parameters(of), at + 2)],
      attributes: settings(of),
      ...more,
    }));

const batchNorm: Cases = fc
  .tuple(fc.tuple(fc.integer({ min: 2, max: 3 }), side(3), side(3)), fc.boolean(), seed)
  .map(([of, trains, at]) => {
    const channels = [of[1]];
    return {
      opType: "BatchNormalization",
      inputs: [
        values(of, at),
        values(channels, at + 1, 0.5, 2),
        values(channels, at + 2),
        values(channels, at + 3),
        values(channels, at + 4, 0.5, 2),
      ],
      attributes: trains ? { training_mode: 1 } : {},
      ...(trains ? { fixed: [3, 4], further: 2 } : {}),
    };
  });

const slice: Cases = fc
  .tuple(
    shape(1, 3),
    fc.array(
      fc.tuple(
        fc.integer({ min: -5, max: 5 }),
        fc.integer({ min: -5, max: 5 }),
        fc.constantFrom(1, 2, 3, -1, -2),
      ),
      { minLength: 3, maxLength: 3 },
    ),
    seed,
  )
  .map(([of, cuts, at]) => {
    const sizes = of.map((size) => size + 2);
    // Cuts that take at least one element.
    const taken = sizes.map((size, axis) => {
      const [start = 0, , step = 1] = cuts[axis] ?? [];
      const first = ((start % size) + size) % size;
      return step > 0 ? [first - (start < 0 ? size : 0), 1000, step] : [first, -1000, step];
    });
    const column = (place: number) => ints(taken.map((cut) => cut[place] ?? 0));
    return {
      opType: "Slice",
      inputs: [values(sizes, at), column(0), column(1), ints(sizes.map((_, axis) => axis)), column(2)],
    };
  });

const concat: Cases = fc
  .tuple(shape(1, 3), fc.nat(2), fc.array(side(3), { minLength: 1, maxLength: 3 }), seed)
  .map(([of, chosen, sizes, at]) => {
    const axis = chosen % of.length;
    return {
      opType: "Concat",
      inputs: sizes.map((size, place) => values(of.with(axis, size), at + place)),
      attributes: { axis: axis - of.length },
    };
  });

const split: Cases = fc
  .tuple(shape(1, 3), fc.nat(2), fc.array(side(3), { minLength: 2, maxLength: 3 }), seed)
  .map(([of, chosen, sizes, at]) => {
    const axis = chosen % of.length;
    return {
      opType: "Split",
      inputs: [
        values(
          of.with(
            axis,
            sizes.reduce((sum, size) => sum + size, 0),
          ),
          at,
        ),
        ints(sizes),
      ],
      attributes: { axis },
      outputs: sizes.length,
    };
  });

/** Indices below `size`, some counted from the end. */
const indices = (count: number, size: number, at: number): number[] => {
  const random = noise(at);
  return Array.from({ length: count }, () => Math.floor(random() * 2 * size) - size);
};

const gather: Cases = fc.tuple(shape(1, 3), shape(0, 2), fc.nat(2), seed).map(([of, picked, chosen, at]) => {
  const axis = chosen % of.length;
  const count = picked.reduce((product, size) => product * size, 1);
  return {
    opType: "Gather",
    inputs: [values(of, at), ints(indices(count, of[axis] ?? 1, at), picked)],
    attributes: { axis },
  };
});

const gatherElements: Cases = fc
  .tuple(shape(1, 3), side(4), fc.nat(2), seed)
  .map(([of, taken, chosen, at]) => {
    const axis = chosen % of.length;
    const picked = of.with(axis, taken);
    const count = picked.reduce((product, size) => product * size, 1);
    return {
      opType: "GatherElements",
      inputs: [values(of, at), ints(indices(count, of[axis] ?? 1, at), picked)],
      attributes: { axis },
    };
  });

const gatherNd: Cases = fc
  .tuple(fc.tuple(side(2), side(3), side(3), side(2)), fc.nat(1), side(2), side(3), seed)
  .map(([of, batch, length, count, at]) => {
    const lists = Array.from({ length }, (_, place) =>
      indices((batch === 0 ? 1 : of[0]) * count, of[batch + place] ?? 1, at + place),
    );
    const tuples = (lists[0] ?? []).flatMap((_, place) => lists.map((list) => list[place] ?? 0));
    return {
      opType: "GatherND",
      inputs: [values(of, at), ints(tuples, [...(batch === 0 ? [] : [of[0]]), count, length])],
      attributes: { batch_dims: batch },
    };
  });

/** Different places along the last axis. */
const scatterElements: Cases = fc
  .tuple(side(3), fc.integer({ min: 2, max: 4 }), fc.boolean(), seed)
  .map(([rows, size, adds, at]) => {
    const turn = at % size;
    const places = Array.from({ length: rows * 2 }, (_, place) => (turn + place) % size);
    return {
      opType: "ScatterElements",
      inputs: [values([rows, size], at), ints(places, [rows, 2]), values([rows, 2], at + 1)],
      attributes: { axis: 1, reduction: adds ? "add" : "none" },
    };
  });

const scatterNd: Cases = fc
  .tuple(fc.integer({ min: 2, max: 4 }), side(3), fc.boolean(), seed)
  .map(([size, row, adds, at]) => ({
    opType: "ScatterND",
    inputs: [values([size, row], at), ints([at % size, (at + 1) % size], [2, 1]), values([2, row], at + 1)],
    attributes: { reduction: adds ? "add" : "none" },
  }));

const resize: Cases = fc
  .record({
    sizes: fc.array(side(4), { minLength: 1, maxLength: 2 }),
    to: fc.array(side(7), { minLength: 2, maxLength: 2 }),
    mode: fc.constantFrom("nearest", "linear", "cubic"),
    coordinates: fc.constantFrom("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"),
    nearest: fc.constantFrom("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
    byScale: fc.boolean(),
    at: seed,
  })
  .map(({ sizes, to, mode, coordinates, nearest, byScale, at }) => {
    // Cubic runs over two axes only.
    const spatial = mode === "cubic" ? [3, 4] : sizes;
    const target = spatial.map((_, axis) => to[axis] ?? 1);
    const scales = floats(
      "float32",
      [2 + spatial.length],
      [1, 1, ...spatial.map((size, axis) => ((target[axis] ?? 1) + 0.25) / size)],
    );
    return {
      opType: "Resize",
      inputs: [
        values([2, 3, ...spatial], at),
        undefined,
        ...(byScale ? [scales] : [undefined, ints([2, 3, ...target])]),
      ],
      attributes: { mode, coordinate_transformation_mode: coordinates, nearest_mode: nearest },
      ...exact,
    };
  });

const pad: Cases = fc
  .tuple(
    fc.tuple(side(3), fc.integer({ min: 3, max: 4 })),
    fc.constantFrom("constant", "reflect", "edge", "wrap"),
    fc.array(fc.integer({ min: -1, max: 2 }), { minLength: 4, maxLength: 4 }),
    seed,
  )
  .map(([of, mode, pads, at]) => ({
    opType: "Pad",
    opset: 19,
    inputs: [
      values(of, at),
      ints(
        mode === "constant"
          ? [Math.max(0, pads[0] ?? 0), pads[1] ?? 0, pads[2] ?? 0, pads[3] ?? 0].map((each, axis) =>
              axis % 2 === 0 ? Math.max(0, each) : each,
            )
          : [0, Math.max(0, pads[1] ?? 0), 0, Math.max(0, pads[3] ?? 0)],
      ),
    ],
    attributes: { mode },
  }));

const softmaxes = (opType: string): Cases =>
  fc.tuple(shape(1, 3), fc.nat(2), seed).map(([of, chosen, at]) => ({
    opType,
    inputs: [values(of, at)],
    attributes: { axis: (chosen % of.length) - of.length },
  }));

/** One arbitrary a rule, by operator. */
export const CASES: Readonly<Record<string, Cases>> = {
  Abs: unary("Abs"),
  Acos: unary("Acos", -0.9, 0.9, single),
  Acosh: unary("Acosh", 1.2, 3, single),
  Asin: unary("Asin", -0.9, 0.9, single),
  Asinh: unary("Asinh", -2, 2, single),
  Atan: unary("Atan", -2, 2, single),
  Atanh: unary("Atanh", -0.8, 0.8, single),
  Cast: fc
    .tuple(shape(), seed)
    .map(([of, at]) => ({ opType: "Cast", inputs: [values(of, at)], attributes: { to: 11 } })),
  Ceil: unary("Ceil", -2, 2),
  Celu: unary("Celu", -2, 2, { ...single, settings: alpha(0.5, 2) }),
  Cos: unary("Cos"),
  Cosh: unary("Cosh", -2, 2, single),
  Elu: unary("Elu", -2, 2, { ...single, settings: alpha(0.5, 2) }),
  Erf: unary("Erf", -2, 2, single),
  Exp: unary("Exp"),
  Floor: unary("Floor"),
  Gelu: unary("Gelu", -3, 3, {
    ...single,
    opset: 20,
    settings: fc.constantFrom({}, { approximate: "tanh" }),
  }),
  // Kinks at -2 and 2, or at -10/3 and 10/3: no number is within a step of them.
  HardSigmoid: unary("HardSigmoid", -4, 4, {
    ...single,
    settings: fc.constantFrom(0.15, 0.25).map((value) => ({ alpha: float(value) })),
  }),
  // A short step, which leads past neither kink: the numbers are further than that from both.
  HardSwish: unary("HardSwish", -5, 5, { ...single, step: 1 / 256 }),
  Hardmax: unary("Hardmax", -2, 2, single),
  Identity: unary("Identity"),
  LeakyRelu: unary("LeakyRelu", -2, 2, { ...single, settings: alpha(0.01, 0.5) }),
  Log: unary("Log", 0.5, 3),
  Mish: unary("Mish", -2, 2, single),
  Neg: unary("Neg"),
  Reciprocal: unary("Reciprocal", 0.5, 3),
  Relu: unary("Relu"),
  Round: unary("Round"),
  Selu: unary("Selu", -2, 2, single),
  Shrink: unary("Shrink", -2, 2, { ...single, step: 1 / 1024, tolerance: 5e-3 }),
  Sigmoid: unary("Sigmoid"),
  Sign: unary("Sign"),
  Sin: unary("Sin"),
  Sinh: unary("Sinh", -2, 2, single),
  Softplus: unary("Softplus", -2, 2, single),
  Softsign: unary("Softsign", -2, 2, single),
  Sqrt: unary("Sqrt", 0.5, 3),
  Swish: unary("Swish", -2, 2, { ...single, opset: 24 }),
  Tan: unary("Tan", -1, 1, single),
  Tanh: unary("Tanh"),
  ThresholdedRelu: unary("ThresholdedRelu", -2, 2, {
    ...single,
    step: 1 / 1024,
    tolerance: 5e-3,
    settings: fc.constantFrom({}, { alpha: float(0.61) }),
  }),

  Add: binary("Add"),
  Clip: fc.tuple(shape(), seed).map(([of, at]) => ({
    opType: "Clip",
    inputs: [values(of, at), values([], at, -1.1, -0.9), values([], at, 0.9, 1.1)],
  })),
  Div: binary("Div", [
    [-2, 2],
    [0.5, 3],
  ]),
  Max: variadic("Max"),
  Mean: variadic("Mean").map((of) => ({ ...of, ...single })),
  Min: variadic("Min"),
  Mul: binary("Mul"),
  PRelu: fc.tuple(shape(1, 3), fc.boolean(), seed).map(([of, one, at]) => ({
    opType: "PRelu",
    inputs: [values([2, 3, ...of], at), values(one ? [1] : [3, ...of.map(() => 1)], at + 1, 0.1, 0.5)],
    ...single,
    step: 1 / 512,
    tolerance: 5e-3,
  })),
  Pow: fc.oneof(
    binary("Pow", [
      [0.5, 2],
      [-2, 2],
    ]),
    fc.tuple(shape(), fc.constantFrom(2, 3), seed).map(([of, exponent, at]) => ({
      opType: "Pow",
      inputs: [values(of, at), floats("float64", [], [exponent])],
    })),
  ),
  Sub: binary("Sub"),
  Sum: variadic("Sum"),
  Where: fc.tuple(broadcast, seed).map(([[a, b], at]) => {
    const full = a.length >= b.length ? a : b;
    const count = full.reduce((product, size) => product * size, 1);
    const random = noise(at);
    return {
      opType: "Where",
      inputs: [
        tensor(
          "bool",
          full,
          Uint8Array.from({ length: count }, () => (random() < 0.5 ? 1 : 0)),
        ),
        values(a, at),
        values(b, at + 1),
      ],
    };
  }),

  Einsum: einsum,
  Gemm: gemm,
  MatMul: matrices,

  Conv: fc.oneof(convolution, depthwise, wideConvolution),
  ConvTranspose: transposed,

  AveragePool: pool(
    "AveragePool",
    { dilated: false },
    fc.record({ count_include_pad: fc.nat(1), ceil_mode: fc.nat(1) }),
    { ...exact, opset: 19 },
  ),
  GlobalAveragePool: norm(
    "GlobalAveragePool",
    () => [],
    () => ({}),
    exact,
  ).map((of) => ({ ...of, inputs: of.inputs.slice(0, 1) })),
  GlobalLpPool: norm(
    "GlobalLpPool",
    () => [],
    () => ({}),
    single,
  ).map((of) => ({ ...of, inputs: of.inputs.slice(0, 1), attributes: { p: 2 } })),
  GlobalMaxPool: norm(
    "GlobalMaxPool",
    () => [],
    () => ({}),
    single,
  ).map((of) => ({ ...of, inputs: of.inputs.slice(0, 1) })),
  LpPool: pool(
    "LpPool",
    { dilated: false, automatic: false },
    fc.record({ p: fc.integer({ min: 2, max: 3 }) }),
    { ...single },
  ),
  MaxPool: fc.oneof(pool("MaxPool", {}, fc.record({ ceil_mode: fc.nat(1) })), windowsApart),

  BatchNormalization: batchNorm,
  Dropout: fc.tuple(shape(), seed).map(([of, at]) => ({
    opType: "Dropout",
    inputs: [values(of, at), floats("float32", [], [0.4]), tensor("bool", [], Uint8Array.of(1))],
    attributes: { seed: 7 },
    once: true,
  })),
  GroupNormalization: norm(
    "GroupNormalization",
    ([, channels = 1]) => [channels],
    () => ({ num_groups: 2 }),
    { ...single, opset: 21, tolerance: 5e-3 },
  ),
  InstanceNormalization: norm(
    "InstanceNormalization",
    ([, channels = 1]) => [channels],
    () => ({}),
    { ...single, tolerance: 5e-3 },
  ),
  LRN: fc
    .tuple(fc.tuple(side(2), fc.integer({ min: 2, max: 6 }), side(2), side(2)), side(5), seed)
    .map(([of, size, at]) => ({
      opType: "LRN",
      inputs: [values(of, at)],
      attributes: { size: 2 * size - 1, alpha: float(0.3), beta: float(0.75), bias: float(1) },
      ...single,
    })),
  LayerNormalization: norm(
    "LayerNormalization",
    (of) => of.slice(2),
    () => ({ axis: 2 }),
  ),
  LogSoftmax: softmaxes("LogSoftmax"),
  LpNormalization: fc.tuple(shape(1, 3), fc.integer({ min: 1, max: 2 }), seed).map(([of, p, at]) => ({
    opType: "LpNormalization",
    inputs: [values(of, at, 0.3, 2)],
    attributes: { p, axis: -1 },
  })),
  MeanVarianceNormalization: norm(
    "MeanVarianceNormalization",
    () => [],
    () => ({}),
    { ...single, tolerance: 5e-3 },
  ).map((of) => ({ ...of, inputs: of.inputs.slice(0, 1) })),
  RMSNormalization: norm(
    "RMSNormalization",
    (of) => of.slice(2),
    () => ({ axis: 2 }),
    { opset: 23 },
  ).map((of) => ({ ...of, inputs: of.inputs.slice(0, 2) })),
  Softmax: softmaxes("Softmax"),

  CumSum: fc
    .tuple(shape(1, 3), fc.nat(2), fc.nat(1), fc.nat(1), seed)
    .map(([of, chosen, exclusive, reverse, at]) => ({
      opType: "CumSum",
      inputs: [values(of, at), ints([chosen % of.length], [])],
      attributes: { exclusive, reverse },
    })),
  // A short step, which leads past no zero: the numbers are further than that from it.
  ReduceL1: reduction("ReduceL1", -2, 2, { ...single, step: 1 / 512 }),
  ReduceL2: reduction("ReduceL2", -2, 2, single),
  ReduceLogSum: reduction("ReduceLogSum", 0.5, 2, single),
  ReduceLogSumExp: reduction("ReduceLogSumExp"),
  ReduceMax: reduction("ReduceMax"),
  ReduceMean: reduction("ReduceMean"),
  ReduceMin: reduction("ReduceMin"),
  ReduceProd: reduction("ReduceProd", 0.5, 1.5, single),
  ReduceSum: reduction("ReduceSum"),
  ReduceSumSquare: reduction("ReduceSumSquare"),

  DepthToSpace: fc
    .tuple(side(2), side(2), side(3), side(3), fc.constantFrom("DCR", "CRD"), seed)
    .map(([images, channels, height, width, mode, at]) => ({
      opType: "DepthToSpace",
      inputs: [values([images, channels * 4, height, width], at)],
      attributes: { blocksize: 2, mode },
    })),
  Expand: broadcast.chain(([a, b]) =>
    seed.map((at) => {
      const [small, full] =
        a.length < b.length || a.every((size, axis) => size <= (b[axis] ?? 1)) ? [a, b] : [b, a];
      return { opType: "Expand", inputs: [values(small, at), ints(full)] };
    }),
  ),
  Flatten: fc.tuple(shape(1, 4), fc.nat(4), seed).map(([of, axis, at]) => ({
    opType: "Flatten",
    inputs: [values(of, at)],
    attributes: { axis: Math.min(axis, of.length) },
  })),
  Reshape: fc
    .tuple(shape(1, 4), seed)
    .map(([of, at]) => ({ opType: "Reshape", inputs: [values(of, at), ints([-1])] })),
  SpaceToDepth: fc.tuple(side(2), side(2), side(3), seed).map(([images, channels, size, at]) => ({
    opType: "SpaceToDepth",
    inputs: [values([images, channels, size * 2, 4], at)],
    attributes: { blocksize: 2 },
  })),
  Squeeze: fc
    .tuple(shape(1, 3), seed)
    .map(([of, at]) => ({ opType: "Squeeze", inputs: [values([1, ...of], at), ints([0])] })),
  Tile: fc
    .tuple(shape(1, 3), fc.array(side(3), { minLength: 3, maxLength: 3 }), seed)
    .map(([of, repeats, at]) => ({
      opType: "Tile",
      inputs: [values(of, at), ints(of.map((_, axis) => repeats[axis] ?? 1))],
    })),
  Transpose: fc.tuple(shape(1, 4), seed).map(([of, at]) => {
    const turn = at % of.length;
    const perm = of.map((_, axis) => (axis + turn) % of.length);
    return { opType: "Transpose", inputs: [values(of, at)], attributes: turn === 0 ? {} : { perm } };
  }),
  Unsqueeze: fc
    .tuple(shape(1, 3), seed)
    .map(([of, at]) => ({ opType: "Unsqueeze", inputs: [values(of, at), ints([0, -1])] })),

  Concat: concat,
  Gather: gather,
  GatherElements: gatherElements,
  GatherND: gatherNd,
  ReverseSequence: fc.tuple(side(3), side(3), side(2), seed).map(([time, batch, row, at]) => ({
    opType: "ReverseSequence",
    inputs: [
      values([time, batch, row], at),
      ints(Array.from({ length: batch }, (_, place) => 1 + ((at + place) % time))),
    ],
  })),
  ScatterElements: scatterElements,
  ScatterND: scatterNd,
  Slice: slice,
  Split: split,
  TopK: fc.tuple(side(3), fc.integer({ min: 2, max: 5 }), side(2), seed).map(([rows, size, k, at]) => ({
    opType: "TopK",
    inputs: [values([rows, size], at), ints([k])],
    attributes: { axis: -1 },
    further: 1,
  })),
  Trilu: fc
    .tuple(shape(2, 3), fc.nat(1), fc.integer({ min: -1, max: 1 }), seed)
    .map(([of, upper, k, at]) => ({
      opType: "Trilu",
      inputs: [values(of, at), ints([k], [])],
      attributes: { upper },
    })),

  Pad: pad,
  Resize: resize,
};

/** Cases for operators of ONNX Runtime's own. */
export const CONTRIBUTED_CASES: Readonly<Record<string, Cases>> = Object.fromEntries(
  ["BiasGelu", "FastGelu", "Gelu", "QuickGelu"].map((opType) => [
    opType,
    fc.tuple(side(3), side(4), seed).map(([rows, size, at]) => ({
      opType,
      domain: "com.microsoft",
      inputs: [
        values([rows, size], at),
        ...(opType === "BiasGelu" || (opType === "FastGelu" && at % 2 === 0) ? [values([size], at + 1)] : []),
      ],
      ...single,
    })),
  ]),
);
