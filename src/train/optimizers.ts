/**
 * Optimisers as ONNX nodes, one update a parameter, defined as in torch.optim of PyTorch 1.13 (no AMSGrad, no
 * maximising): SGD after Sutskever et al., "On the importance of initialization and momentum in deep learning"
 * (2013), Adam after Kingma and Ba (2015), AdamW after Loshchilov and Hutter (2019). What changes from step to
 * step (the rate, the correction of Adam's young moments) are inputs of the graph.
 */
import type { Builder, FloatType } from "./autodiff/builder.js";

/** An optimiser and its settings. */
export type Optimizer =
  | {
      readonly kind: "sgd";
      /** 0 by default. */
      readonly momentum?: number;
      /** Look ahead along the momentum; false by default. */
      readonly nesterov?: boolean;
      /** Added to the gradient, times the parameter; 0 by default. */
      readonly weightDecay?: number;
    }
  | {
      readonly kind: "adam" | "adamw";
      /** Decay of the two moments; 0.9 and 0.999 by default. */
      readonly betas?: readonly [number, number];
      /** 1e-8 by default. */
      readonly epsilon?: number;
      /**
       * Adam adds it to the gradient, times the parameter (0 by default); AdamW takes it off the parameter, times the
       * rate (0.01 by default).
       */
      readonly weightDecay?: number;
    };

/** Names of all optimisers. */
export const OPTIMIZER_KINDS = ["sgd", "adam", "adamw"] as const satisfies readonly Optimizer["kind"][];

/** One parameter in the hands of an optimiser. */
export interface Update {
  readonly builder: Builder;
  readonly dtype: FloatType;
  readonly parameter: string;
  readonly gradient: string;
  /** State of this parameter, as many values of its shape as {@link stateCount} says; zeros at first. */
  readonly state: readonly string[];
  /** The rate of this step, times the factor of the parameter's group. */
  readonly rate: string;
  /** Takes the place of the optimiser's own weight decay. */
  readonly weightDecay?: number | undefined;
  /** The values of {@link stepScalars}, by name. */
  readonly scalars: ReadonlyMap<string, string>;
}

/** How many values of its own shape an optimiser keeps for a parameter. */
export function stateCount(optimizer: Optimizer): number {
  if (optimizer.kind !== "sgd") return 2;
  return (optimizer.momentum ?? 0) === 0 ? 0 : 1;
}

const betasOf = (optimizer: Extract<Optimizer, { kind: "adam" | "adamw" }>) =>
  optimizer.betas ?? [0.9, 0.999];

/** Numbers that depend on how many steps were done, the one to come included. */
export function stepScalars(optimizer: Optimizer, step: number): ReadonlyMap<string, number> {
  if (optimizer.kind === "sgd") return new Map();
  const [first, second] = betasOf(optimizer);
  // Moments are kept without their factor 1 - beta, which saves passes over memory; it is put into these two.
  const deviation = Math.sqrt((1 - second ** step) / (1 - second));
  return new Map([
    ["scale", ((1 - first) / (1 - first ** step)) * deviation],
    ["floor", (optimizer.epsilon ?? 1e-8) * deviation],
  ]);
}

/** Writes the update of one parameter. */
export function updated(
  optimizer: Optimizer,
  update: Update,
): { parameter: string; state: readonly string[] } {
  const { builder, dtype, parameter, gradient, state, rate, scalars } = update;
  const op = (opType: string, ...operands: readonly (string | number)[]) =>
    builder.op(
      opType,
      operands.map((each) => (typeof each === "number" ? builder.scalar(each, dtype) : each)),
    );
  const weightDecay = update.weightDecay ?? optimizer.weightDecay ?? (optimizer.kind === "adamw" ? 0.01 : 0);
  const decoupled = optimizer.kind === "adamw";
  const g =
    weightDecay === 0 || decoupled ? gradient : op("Add", gradient, op("Mul", parameter, weightDecay));
  if (optimizer.kind === "sgd") {
    const momentum = optimizer.momentum ?? 0;
    const [old = ""] = state;
    if (momentum === 0) return { parameter: op("Sub", parameter, op("Mul", g, rate)), state: [] };
    const velocity = op("Add", op("Mul", old, momentum), g);
    const direction = optimizer.nesterov ? op("Add", op("Mul", velocity, momentum), g) : velocity;
    return { parameter: op("Sub", parameter, op("Mul", direction, rate)), state: [velocity] };
  }
  const [first, second] = betasOf(optimizer);
  const [oldMean = "", oldSquare = ""] = state;
  const mean = op("Add", op("Mul", oldMean, first), g);
  const square = op("Add", op("Mul", oldSquare, second), op("Mul", g, g));
  const divisor = op("Add", op("Sqrt", square), scalars.get("floor") ?? 0);
  const change = op("Div", op("Mul", mean, op("Mul", rate, scalars.get("scale") ?? 1)), divisor);
  const decayed =
    decoupled && weightDecay !== 0
      ? op("Mul", parameter, op("Sub", 1, op("Mul", rate, weightDecay)))
      : parameter;
  return { parameter: op("Sub", decayed, change), state: [mean, square] };
}
