/**
 * Losses as ONNX nodes behind a model's outputs. Each follows PyTorch's definition of the same name with reduction
 * `mean`, so that numbers can be compared; focal losses follow torchvision and Lin et al., "Focal Loss for Dense
 * Object Detection" (2017), distillation Hinton et al., "Distilling the Knowledge in a Neural Network" (2015), those of
 * the centre head Zhou et al., "Objects as Points" (2019).
 */
import { PolyheadError } from "../base/errors.js";
import { withGraph } from "../onnx/extract.js";
import { GraphIndex } from "../onnx/graph.js";
import { canonicalDomain, copyOf, type Model, opsetVersion, valueInfo } from "../onnx/model.js";
import { inferTypes } from "../onnx/shapes.js";
import type { DType } from "../tensor/dtype.js";
import { formatShape, isConcrete, type Shape } from "../tensor/shape.js";
import { int64 } from "../tensor/tensor.js";
import { Builder, type FloatType, floats, LEAST_OPSET } from "./autodiff/builder.js";

/** A loss and its settings. */
export type Loss =
  | {
      /** Classes as whole numbers [batch, ...], or as shares [batch, classes, ...], against logits [batch, classes, ...]. */
      readonly kind: "cross-entropy";
      /** Share of each target that is spread evenly over all classes; 0 by default. */
      readonly labelSmoothing?: number;
      /** Weight of each class; all 1 by default. */
      readonly classWeights?: readonly number[];
    }
  | {
      /** Shares from 0 to 1 against logits of the same shape. */
      readonly kind: "binary-cross-entropy";
      /** Weight of positive targets; 1 by default. */
      readonly positiveWeight?: number;
    }
  | { readonly kind: "mean-squared" }
  | {
      readonly kind: "smooth-l1";
      /** Where the square ends and the line begins; 1 by default. */
      readonly beta?: number;
    }
  | {
      /** As cross entropy for classes; for shares of the same shape as the logits, one yes or no each. */
      readonly kind: "focal";
      /** How much easy examples count less; 2 by default. */
      readonly gamma?: number;
      /** Weight of positive targets where each is a yes or no (0.25 by default); not used for classes. */
      readonly alpha?: number;
    }
  | {
      /** A teacher's logits against logits [batch, classes]: T^2 KL(teacher || student), mean over the batch. */
      readonly kind: "distillation";
      /** Divides both logits; 2 by default. */
      readonly temperature?: number;
    }
  | {
      /**
       * Where objects have their centres, against logits of the same shape: 1 at a centre, from 0 to below 1 around it,
       * below 0 where nothing is to be learned. The sum divided by the number of centres.
       */
      readonly kind: "centre-heat";
    }
  | {
      /**
       * Numbers at some places, against [batch, channels, ...]: the target has one channel more, the last, which is 1 at
       * those places and 0 elsewhere. The sum of absolute differences divided by the number of places.
       */
      readonly kind: "masked-l1";
    };

/** Names of all losses. */
export const LOSS_KINDS = [
  "cross-entropy",
  "binary-cross-entropy",
  "mean-squared",
  "smooth-l1",
  "focal",
  "distillation",
  "centre-heat",
  "masked-l1",
] as const satisfies readonly Loss["kind"][];

/** One term of a loss: a value of the model against a target. */
export interface LossTerm {
  readonly loss: Loss;
  /** A value of the model; its first output by default. Inner values serve feature matching. */
  readonly output?: string;
  /** Name of the new input with the target. */
  readonly target: string;
  /** Dtype and shape of the target. */
  readonly dtype: DType;
  readonly shape: Shape;
  /** Factor of this term in the sum; 1 by default. */
  readonly weight?: number;
}

/** A model with a loss. */
export interface WithLoss {
  readonly model: Model;
  /** The loss, a value of rank 0. */
  readonly loss: string;
  /** The value that each term looks at. */
  readonly outputs: readonly string[];
  /** How many classes the target of each term names one of; undefined for targets that name none. */
  readonly classes: readonly (number | undefined)[];
}

/**
 * Adds the weighted sum of losses to a model with bound shapes. Cross entropies, focal losses and distillation of an
 * output that a Softmax (or Sigmoid, for binary ones and heat) makes look at what goes into it.
 * @throws PolyheadError INPUT_MISMATCH for targets that do not fit, NOT_FOUND, INVALID_ARGUMENT
 */
export function withLoss(model: Model, terms: readonly LossTerm[]): WithLoss {
  const types = inferTypes(model);
  const index = new GraphIndex(model.graph);
  const taken = [...types.keys(), ...terms.map(({ target }) => target)];
  const builder = new Builder(opsetVersion(model) ?? LEAST_OPSET, taken, "loss");
  const written = terms.map((term) => {
    const output = logitsOf(index, term.output ?? index.outputNames[0] ?? "", term.loss);
    const type = types.get(output);
    if (!type?.shape || !isConcrete(type.shape) || (type.dtype !== "float32" && type.dtype !== "float64")) {
      throw new PolyheadError(
        type ? "INVALID_ARGUMENT" : "NOT_FOUND",
        `The loss needs a float value of known shape; ${JSON.stringify(output)} is ${type ? `${type.dtype} ${type.shape ? formatShape(type.shape) : "of unknown shape"}` : "no value of the model"}.`,
        { value: output },
      );
    }
    const place = { builder, x: output, shape: type.shape, dtype: type.dtype, term };
    const value = new Writer(place).loss(term.loss);
    const classes = namesClasses(term) ? type.shape[1] : undefined;
    const { weight = 1 } = term;
    const scaled = weight === 1 ? value : builder.op("Mul", [value, builder.scalar(weight, type.dtype)]);
    return { output, classes, value: scaled };
  });
  const [first = "", ...others] = written.map(({ value }) => value);
  const loss = others.length === 0 ? first : builder.op("Sum", [first, ...others]);
  const main = copyOf(model.graph, {
    node: [...model.graph.node, ...builder.nodes],
    initializer: [...model.graph.initializer, ...builder.weights],
    input: [
      ...model.graph.input,
      ...terms.map(({ target, dtype, shape }) => valueInfo(target, dtype, shape)),
    ],
    output: [...model.graph.output, valueInfo(loss, "float32", [])],
  });
  return {
    model: withGraph(model, main),
    loss,
    outputs: written.map(({ output }) => output),
    classes: written.map(({ classes }) => classes),
  };
}

/** Whether the target names classes. */
function namesClasses({ loss, dtype }: LossTerm): boolean {
  return (
    (loss.kind === "cross-entropy" || loss.kind === "focal") && dtype !== "float32" && dtype !== "float64"
  );
}

/** What goes into the last activation, where the loss has that activation in itself. */
function logitsOf(index: GraphIndex, output: string, { kind }: Loss): string {
  const maker = index.producers.get(output);
  if (!maker || canonicalDomain(maker.domain) !== "") return output;
  const isClasses = kind === "cross-entropy" || kind === "focal" || kind === "distillation";
  const isShares = kind === "binary-cross-entropy" || kind === "centre-heat";
  const inLoss = isClasses ? ["Softmax", "LogSoftmax"] : isShares ? ["Sigmoid"] : [];
  return inLoss.includes(maker.opType) ? (maker.input[0] ?? output) : output;
}

interface Place {
  readonly builder: Builder;
  readonly x: string;
  readonly shape: Shape;
  readonly dtype: FloatType;
  readonly term: LossTerm;
}

/** Writes the formula of one term. */
class Writer {
  readonly #place: Place;

  constructor(place: Place) {
    this.#place = place;
  }

  loss(loss: Loss): string {
    switch (loss.kind) {
      case "cross-entropy":
        return this.#crossEntropy(loss.labelSmoothing ?? 0, loss.classWeights);
      case "binary-cross-entropy":
        return this.#mean(this.#binary(this.#sameShape(), loss.positiveWeight ?? 1));
      case "mean-squared": {
        const difference = this.#op("Sub", this.#place.x, this.#sameShape());
        return this.#mean(this.#op("Mul", difference, difference));
      }
      case "smooth-l1":
        return this.#smoothL1(loss.beta ?? 1);
      case "focal":
        return namesClasses(this.#place.term)
          ? this.#focalClasses(loss.gamma ?? 2)
          : this.#focal(loss.gamma ?? 2, loss.alpha ?? 0.25);
      case "distillation":
        return this.#distillation(loss.temperature ?? 2);
      case "centre-heat":
        return this.#centreHeat();
      case "masked-l1":
        return this.#maskedL1();
    }
  }

  /** -sum(q w log p) / sum(w of the targets), q the smoothed targets. */
  #crossEntropy(smoothing: number, weights: readonly number[] | undefined): string {
    const { builder, x, shape, dtype } = this.#place;
    const classes = shape[1] ?? 1;
    if (weights && weights.length !== classes) {
      throw new PolyheadError(
        "INVALID_ARGUMENT",
        `There are ${weights.length} class weights for ${classes} classes; expected one each.`,
        { got: weights.length, expected: classes },
      );
    }
    const hard = namesClasses(this.#place.term);
    const target = hard ? this.#oneHot() : this.#sameShape();
    const smoothed =
      smoothing === 0 ? target : this.#op("Add", this.#op("Mul", target, 1 - smoothing), smoothing / classes);
    const each =
      weights && builder.constant(floats(dtype, [classes, ...shape.slice(2).map(() => 1)], weights));
    const weighted = (value: string) => (each === undefined ? value : this.#op("Mul", value, each));
    const logs = builder.op("LogSoftmax", [x], { axis: 1 });
    const sum = this.#sum(weighted(this.#op("Mul", smoothed, logs)));
    if (hard && each !== undefined) return this.#op("Neg", this.#op("Div", sum, this.#sum(weighted(target))));
    const count = shape.reduce((product, size) => product * size, 1) / classes;
    return this.#op("Mul", sum, -1 / count);
  }

  /** (1 - y) x + (1 + (w - 1) y) softplus(-x), which is the stable form. */
  #binary(target: string, weight: number): string {
    const { builder, x } = this.#place;
    const negative = this.#op("Mul", this.#op("Sub", 1, target), x);
    const softplus = builder.op("Softplus", [builder.op("Neg", [x])]);
    if (weight === 1) return this.#op("Add", negative, softplus);
    const factor = this.#op("Add", this.#op("Mul", target, weight - 1), 1);
    return this.#op("Add", negative, this.#op("Mul", factor, softplus));
  }

  #smoothL1(beta: number): string {
    const { builder, x } = this.#place;
    const size = builder.op("Abs", [this.#op("Sub", x, this.#sameShape())]);
    const square = this.#op("Mul", this.#op("Mul", size, size), 0.5 / beta);
    const line = this.#op("Sub", size, 0.5 * beta);
    const isSmall = this.#op("Less", size, beta);
    return this.#mean(builder.op("Where", [isSmall, square, line]));
  }

  /** (1 - p)^gamma of the right class times its cross entropy. */
  #focalClasses(gamma: number): string {
    const { builder, x, shape } = this.#place;
    const logs = builder.op("LogSoftmax", [x], { axis: 1 });
    const log = builder.reduce("ReduceSum", this.#op("Mul", this.#oneHot(), logs), [1], false);
    const rest = this.#op("Sub", 1, builder.op("Exp", [log]));
    const count = shape.reduce((product, size) => product * size, 1) / (shape[1] ?? 1);
    return this.#op("Mul", this.#sum(this.#op("Mul", this.#op("Pow", rest, gamma), log)), -1 / count);
  }

  /** torchvision.ops.sigmoid_focal_loss. */
  #focal(gamma: number, alpha: number): string {
    const { builder, x } = this.#place;
    const target = this.#sameShape();
    const p = builder.op("Sigmoid", [x]);
    const both = (yes: string, no: string) =>
      this.#op("Add", this.#op("Mul", yes, target), this.#op("Mul", no, this.#op("Sub", 1, target)));
    const wrong = this.#op("Sub", 1, both(p, this.#op("Sub", 1, p)));
    const each = this.#op("Mul", this.#binary(target, 1), this.#op("Pow", wrong, gamma));
    const share = this.#op("Add", this.#op("Mul", target, 2 * alpha - 1), 1 - alpha);
    return this.#mean(this.#op("Mul", each, share));
  }

  #distillation(temperature: number): string {
    const { builder, x, shape } = this.#place;
    const logs = (value: string) =>
      builder.op("LogSoftmax", [this.#op("Mul", value, 1 / temperature)], { axis: 1 });
    const teacher = logs(this.#sameShape());
    const difference = this.#op("Sub", teacher, logs(x));
    const sum = this.#sum(this.#op("Mul", builder.op("Exp", [teacher]), difference));
    return this.#op("Mul", sum, temperature ** 2 / (shape[0] ?? 1));
  }

  /** -(1 - p)^2 log p at centres, -(1 - y)^4 p^2 log(1 - p) elsewhere. */
  #centreHeat(): string {
    const { builder, x, dtype } = this.#place;
    const target = this.#sameShape();
    const isCentre = builder.cast(this.#op("Equal", target, 1), "bool", dtype);
    const counts = builder.cast(this.#op("GreaterOrEqual", target, 0), "bool", dtype);
    const p = builder.op("Sigmoid", [x]);
    const square = (value: string) => builder.op("Mul", [value, value]);
    const missed = this.#op(
      "Mul",
      square(this.#op("Sub", 1, p)),
      builder.op("Softplus", [builder.op("Neg", [x])]),
    );
    const wrong = this.#op("Mul", square(p), builder.op("Softplus", [x]));
    const distance = this.#op(
      "Mul",
      this.#op("Sub", counts, isCentre),
      square(square(this.#op("Sub", 1, target))),
    );
    const each = this.#op("Add", this.#op("Mul", isCentre, missed), this.#op("Mul", distance, wrong));
    return this.#op("Div", this.#sum(each), this.#op("Max", this.#sum(isCentre), 1));
  }

  #maskedL1(): string {
    const { builder, x, shape, dtype, term } = this.#place;
    const [batch = 1, channels = 1, ...others] = shape;
    this.#requireShape([batch, channels + 1, ...others]);
    const target = builder.cast(term.target, term.dtype, dtype);
    const mask = builder.slice(target, 1, channels, channels + 1);
    const size = builder.op("Abs", [this.#op("Sub", x, builder.slice(target, 1, 0, channels))]);
    return this.#op("Div", this.#sum(this.#op("Mul", size, mask)), this.#op("Max", this.#sum(mask), 1));
  }

  #oneHot(): string {
    const { builder, shape, dtype, term } = this.#place;
    const [batch = 1, classes = 1, ...others] = shape;
    this.#requireShape([batch, ...others]);
    const indices = term.dtype === "int64" ? term.target : builder.op("Cast", [term.target], { to: INT64 });
    const depth = builder.constant(int64([], [classes]));
    return builder.op("OneHot", [indices, depth, builder.constant(floats(dtype, [2], [0, 1]))], { axis: 1 });
  }

  #sameShape(): string {
    const { builder, shape, dtype, term } = this.#place;
    this.#requireShape(shape);
    return builder.cast(term.target, term.dtype, dtype);
  }

  #requireShape(expected: Shape): void {
    const { term, x } = this.#place;
    if (term.shape.length === expected.length && term.shape.every((size, axis) => size === expected[axis]))
      return;
    throw new PolyheadError(
      "INPUT_MISMATCH",
      `The target ${JSON.stringify(term.target)} has the shape ${formatShape(term.shape)}; ${term.loss.kind} of ${JSON.stringify(x)} ${formatShape(this.#place.shape)} takes ${formatShape(expected)}.`,
      { target: term.target, got: term.shape, expected },
    );
  }

  #sum(value: string): string {
    return this.#place.builder.op("ReduceSum", [value], { keepdims: 0 });
  }

  #mean(value: string): string {
    return this.#place.builder.op("ReduceMean", [value], { keepdims: 0 });
  }

  #op(opType: string, ...operands: readonly (string | number)[]): string {
    const { builder, dtype } = this.#place;
    return builder.op(
      opType,
      operands.map((each) => (typeof each === "number" ? builder.scalar(each, dtype) : each)),
    );
  }
}

/** ONNX's number of int64, which Cast takes. */
const INT64 = 7;
