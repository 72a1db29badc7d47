/**
 * Optimisers as kernels, one pass over a parameter and what is kept for it, defined as in torch.optim of PyTorch 1.13 (no AMSGrad, no
 * maximising): SGD after Sutskever et al., "On the importance of initialization and momentum in deep learning"
 * (2013), Adam after Kingma and Ba (2015), AdamW after Loshchilov and Hutter (2019). What changes from step to
 * step (the rate, the correction of Adam's young moments) are numbers of the kernel.
 */
import {
  add,
  constant,
  div,
  type Expression,
  type Kernel,
  mul,
  number,
  operand,
  sqrt,
  sub,
} from "../runtime/kernel.js";

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

/** How one parameter is updated. */
export interface UpdateSettings {
  /** Factor of the rate; 1 by default. */
  readonly rate?: number | undefined;
  /** Takes the place of the optimiser's own weight decay. */
  readonly weightDecay?: number | undefined;
  /** Whether gradients are scaled by a number that comes with each step. */
  readonly scaled: boolean;
  /** Decay of a moving average that is kept of the parameter. */
  readonly average?: number | undefined;
}

/** How many values of its own shape an optimiser keeps for a parameter; zeros at first. */
export function stateCount(optimizer: Optimizer): number {
  if (optimizer.kind !== "sgd") return 2;
  return (optimizer.momentum ?? 0) === 0 ? 0 : 1;
}

const betasOf = (optimizer: Extract<Optimizer, { kind: "adam" | "adamw" }>) =>
  optimizer.betas ?? [0.9, 0.999];

/** Numbers of an update after its rate: they depend on how many steps were done, the one to come included. */
export function stepNumbers(optimizer: Optimizer, step: number): number[] {
  if (optimizer.kind === "sgd") return [];
  const [first, second] = betasOf(optimizer);
  // Moments are kept without their factor 1 - beta, which saves work; it is put into these two.
  const deviation = Math.sqrt((1 - second ** step) / (1 - second));
  return [((1 - first) / (1 - first ** step)) * deviation, (optimizer.epsilon ?? 1e-8) * deviation];
}

/**
 * The update of a parameter. Operands are the parameter, its state, its average where one is kept, and the gradient; numbers
 * are the rate, those of {@link stepNumbers}, and the scale of the gradient where there is one.
 */
export function updateKernel(optimizer: Optimizer, settings: UpdateSettings): Kernel {
  const { average, scaled } = settings;
  const states = stateCount(optimizer);
  const averages = average === undefined ? 0 : 1;
  const given = operand(1 + states + averages);
  const numbers = 1 + stepNumbers(optimizer, 1).length;
  const gradient = scaled ? mul(given, number(numbers)) : given;
  const [parameter, ...state] = renewed(optimizer, settings, gradient);
  const values = [parameter, ...state];
  if (average !== undefined) values.push(averaged(operand(1 + states), parameter, average));
  return {
    operands: values.length + 1,
    numbers: numbers + (scaled ? 1 : 0),
    writes: values.map((value, place) => [place, value]),
  };
}

/** A parameter and its state after a step. */
function renewed(
  optimizer: Optimizer,
  settings: UpdateSettings,
  gradient: Expression,
): [Expression, ...Expression[]] {
  const parameter = operand(0);
  const { rate: factor = 1 } = settings;
  const rate = factor === 1 ? number(0) : mul(number(0), constant(factor));
  const decay = settings.weightDecay ?? optimizer.weightDecay ?? (optimizer.kind === "adamw" ? 0.01 : 0);
  const decoupled = optimizer.kind === "adamw";
  const g = decay === 0 || decoupled ? gradient : add(gradient, mul(parameter, constant(decay)));
  if (optimizer.kind === "sgd") {
    const momentum = optimizer.momentum ?? 0;
    if (momentum === 0) return [sub(parameter, mul(g, rate))];
    const velocity = add(mul(operand(1), constant(momentum)), g);
    const direction = optimizer.nesterov ? add(mul(velocity, constant(momentum)), g) : velocity;
    return [sub(parameter, mul(direction, rate)), velocity];
  }
  const [first, second] = betasOf(optimizer);
  const [scale, floor] = [number(1), number(2)];
  const mean = add(mul(operand(1), constant(first)), g);
  const square = add(mul(operand(2), constant(second)), mul(g, g));
  const change = div(mul(mean, mul(rate, scale)), add(sqrt(square), floor));
  const decayed =
    decoupled && decay !== 0 ? mul(parameter, sub(constant(1), mul(rate, constant(decay)))) : parameter;
  return [sub(decayed, change), mean, square];
}

const averaged = (old: Expression, value: Expression, decay: number) =>
  add(mul(old, constant(decay)), mul(value, constant(1 - decay)));

/** Moves an average (the first operand) towards a value. */
export function averageKernel(decay: number): Kernel {
  return { operands: 2, numbers: 0, writes: [[0, averaged(operand(0), operand(1), decay)]] };
}

/** Makes the first operand what the second one is. */
export const COPY: Kernel = { operands: 2, numbers: 0, writes: [[0, operand(1)]] };

/** Makes the first operand a share of the second one, which is the number. */
export const SHARE: Kernel = { operands: 2, numbers: 1, writes: [[0, mul(operand(1), number(0))]] };

/** Adds such a share. */
export const ADD_SHARE: Kernel = {
  operands: 2,
  numbers: 1,
  writes: [[0, add(operand(0), mul(operand(1), number(0)))]],
};
