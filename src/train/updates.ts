/**
 * What follows from the gradients of a step, as changes of variables: parameters, what the optimiser keeps for them, their
 * averages, running statistics, and sums of gradients over several batches.
 */
import { PolyheadError } from "../base/errors.js";
import type { Change } from "../runtime/backend.js";
import type { Kernel } from "../runtime/kernel.js";
import {
  ADD_SHARE,
  averageKernel,
  COPY,
  type Optimizer,
  SHARE,
  stateCount,
  stepNumbers,
  updateKernel,
} from "./optimizers.js";

/** Settings of a parameter, or of several. */
export interface ParameterGroup {
  /** Factor of the rate; 1 by default. */
  readonly rate?: number;
  /** In place of the optimiser's. */
  readonly weightDecay?: number;
}

/** How parameters are changed. */
export interface UpdateOptions {
  readonly optimizer: Optimizer;
  /** The gradient of all parameters together is scaled down to this Euclidean length. */
  readonly clipNorm?: number | undefined;
  /** Decay of an exponential moving average of parameters and running statistics, which is kept beside them. */
  readonly average?: number | undefined;
  /** The group of a parameter. */
  readonly groupOf?: (parameter: string) => ParameterGroup;
}

/** The moving average of a parameter, or of statistics. */
export function averageName(parameter: string): string {
  return `${parameter}/average`;
}

/** The sum of a parameter's gradients. */
export function sumName(parameter: string): string {
  return `${parameter}/sum`;
}

/** What is kept of a parameter, itself first, in the order of its kernel; all but it and its average begin with zeros. */
export function namesKept(parameter: string, { optimizer, average }: UpdateOptions): string[] {
  const states = Array.from({ length: stateCount(optimizer) }, (_, place) => `${parameter}/${place + 1}`);
  return [parameter, ...states, ...(average === undefined ? [] : [averageName(parameter)])];
}

/** Bytes that tensors of one arena may take: what a WebAssembly memory has, but for the gaps between them. */
const ARENA_BYTES = 2 ** 32 - 2 ** 28;

/**
 * The number of the arena that each parameter lies in, with all that is kept of it: what is changed together lies together.
 * @param sizes elements, by parameter
 * @param kept values that are kept of each
 * @throws PolyheadError MODEL_UNSUPPORTED for a parameter that is too large for any
 */
export function arenasOf(sizes: ReadonlyMap<string, number>, kept: number): Map<string, number> {
  const most = Math.floor(ARENA_BYTES / (Float32Array.BYTES_PER_ELEMENT * kept));
  let [arena, taken] = [0, 0];
  return new Map(
    [...sizes].map(([name, size]) => {
      if (size > most) {
        throw new PolyheadError(
          "MODEL_UNSUPPORTED",
          `The parameter ${JSON.stringify(name)} has ${size} elements; training keeps ${kept} values of each and takes up to ${most}. Leave it as it is, or take an optimiser that keeps less, such as sgd.`,
          { parameter: name, got: size, expected: most },
        );
      }
      if (taken + size > most) [arena, taken] = [arena + 1, 0];
      taken += size;
      return [name, arena] as const;
    }),
  );
}

/** The changes of a training. */
export class Updates {
  readonly #options: UpdateOptions;
  /** The number of a variable. */
  readonly #variable: (name: string) => number;
  /** By settings: parameters of one group have one. */
  readonly #kernels = new Map<string, Kernel>();

  constructor(options: UpdateOptions, variable: (name: string) => number) {
    this.#options = options;
    this.#variable = variable;
  }

  /**
   * The update of parameters.
   * @param gradients values, or variables, by parameter
   * @param step its number, from 1
   * @param scale value that all gradients are multiplied by
   */
  ofParameters(
    gradients: ReadonlyMap<string, string | number>,
    rate: number,
    step: number,
    scale: string | undefined,
  ): Change[] {
    const numbers = [
      rate,
      ...stepNumbers(this.#options.optimizer, step),
      ...(scale === undefined ? [] : [scale]),
    ];
    return [...gradients].map(([name, gradient]) => ({
      kernel: this.#kernel(name, scale !== undefined),
      operands: [...namesKept(name, this.#options).map(this.#variable), gradient],
      numbers,
    }));
  }

  /** Running statistics become what a batch made of them. */
  ofStatistics(statistics: ReadonlyMap<string, string>): Change[] {
    return [...statistics].map(([name, value]) => ({
      kernel: COPY,
      operands: [this.#variable(name), value],
      numbers: [],
    }));
  }

  /** The averages of running statistics follow them. */
  ofAverages(statistics: Iterable<string>): Change[] {
    const { average } = this.#options;
    if (average === undefined) return [];
    const kernel = averageKernel(average);
    return [...statistics].map((name) => ({
      kernel,
      operands: [this.#variable(averageName(name)), this.#variable(name)],
      numbers: [],
    }));
  }

  /** Gradients of one of several batches are added up. */
  ofSums(gradients: ReadonlyMap<string, string>, share: number, isFirst: boolean): Change[] {
    return [...gradients].map(([name, gradient]) => ({
      kernel: isFirst ? SHARE : ADD_SHARE,
      operands: [this.#variable(sumName(name)), gradient],
      numbers: [share],
    }));
  }

  #kernel(parameter: string, scaled: boolean): Kernel {
    const { optimizer, average, groupOf } = this.#options;
    const settings = { ...groupOf?.(parameter), average, scaled };
    const key = JSON.stringify(settings);
    const kernel = this.#kernels.get(key) ?? updateKernel(optimizer, settings);
    this.#kernels.set(key, kernel);
    return kernel;
  }
}
