/** The variables of one backend, by number: kept in arenas, and changed there by kernels. */
import { PolyheadError } from "../base/errors.js";
import { elementCount, type Shape } from "../tensor/shape.js";
import { float32, type Tensor } from "../tensor/tensor.js";
import { Arena, type Place } from "./arena.js";
import type { Change, Variable } from "./backend.js";
import type { Values } from "./values.js";

interface Kept extends Place {
  readonly name: string;
  readonly shape: Shape;
}

/** Tensors that programs change. */
export class Variables {
  readonly #kept = new Map<number, Kept>();
  readonly #arenas = new Map<string, Arena>();

  /** @throws PolyheadError LOAD_FAILED when there is no memory left */
  keep(number: number, { shape, start, arena: name }: Variable): void {
    const arena = this.#arenas.get(name) ?? new Arena();
    this.#arenas.set(name, arena);
    const place = arena.place(elementCount(shape));
    if (start) arena.view(place).set(elements(start));
    this.#kept.set(number, { ...place, name, shape });
  }

  /** A variable as it is now, in its own memory; undefined where there is none. Valid until another one is kept or changed. */
  get(number: number): Tensor | undefined {
    const kept = this.#kept.get(number);
    return kept && float32(kept.shape, kept.arena.view(kept));
  }

  /** @throws PolyheadError CLOSED for a variable that is not there; why a value failed; INTERNAL */
  change({ kernel, operands, numbers }: Change, values: Values): void {
    const places = operands.map((each) =>
      typeof each === "number" ? this.#require(each) : elements(values.get(each)),
    );
    const written = kernel.writes.map(([place]) => places[place]);
    const [first] = written;
    if (
      !first ||
      !("arena" in first) ||
      written.some((each) => !each || !("arena" in each) || each.arena !== first.arena)
    )
      throw new PolyheadError("INTERNAL", "A change writes what are no variables of one arena.", {
        operands,
      });
    if (places.some(({ length }) => length !== first.length))
      throw new PolyheadError("INTERNAL", "The operands of a change have different sizes.", { operands });
    first.arena.run(
      kernel,
      places,
      numbers.map((each) => (typeof each === "number" ? each : Number(values.get(each).data[0]))),
    );
  }

  /** Frees a variable, if there is one; memory goes back with the last one of an arena. */
  release(number: number): void {
    const kept = this.#kept.get(number);
    this.#kept.delete(number);
    if (kept && ![...this.#kept.values()].some(({ arena }) => arena === kept.arena))
      this.#arenas.delete(kept.name);
  }

  #require(number: number): Kept {
    const kept = this.#kept.get(number);
    if (kept) return kept;
    throw new PolyheadError("CLOSED", `Variable ${number} is not kept in this worker.`, { variable: number });
  }
}

function elements({ data, dtype }: Tensor): Float32Array {
  if (data instanceof Float32Array) return data;
  throw new PolyheadError("INTERNAL", `A variable is float32; got ${dtype}.`, { got: dtype });
}
