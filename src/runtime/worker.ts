/**
 * One backend of a {@link Runtime} and what it holds. Each session or tensor is made once and freed once in it, freed only
 * after it was made; a backend that has died holds nothing, and freeing there is nothing to do.
 */
import { PolyheadError } from "../base/errors.js";
import type { Backend } from "./backend.js";

/** Something that every backend holds: a session or a tensor. */
export interface Resource {
  /** Its number in every backend; never used twice. */
  readonly number: number;
  /** Makes it in a backend. */
  readonly make: (backend: Backend) => Promise<void>;
}

/** A backend at work. */
export class Worker {
  readonly backend: Backend;
  /** Whether it has every session in use, so that programs may be given to it. */
  ready = false;
  /** Whether it runs a program. */
  busy = false;
  readonly #made = new Map<number, Promise<void>>();
  #closed = false;

  constructor(backend: Backend) {
    this.backend = backend;
  }

  /** The resource made here: asked of the backend once, however often it is called. */
  make(resource: Resource): Promise<void> {
    const known = this.#made.get(resource.number);
    if (known) return known;
    const made = resource.make(this.backend);
    this.#made.set(resource.number, made);
    return made;
  }

  /** Frees a resource, if it was made here. */
  async release(number: number): Promise<void> {
    const made = this.#made.get(number);
    this.#made.delete(number);
    const isThere = await made?.then(
      () => true,
      () => false,
    );
    if (isThere && !this.#closed) await this.backend.release(number).catch(ignoreLost);
  }

  /** Frees everything, what is about to be released included. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.backend.close().catch(ignoreLost);
  }
}

/** Whether a failure says that the worker is gone, and not what it was asked. */
export function isLost(thrown: unknown): boolean {
  return thrown instanceof PolyheadError && thrown.code === "WORKER_LOST";
}

function ignoreLost(thrown: unknown): void {
  if (!isLost(thrown)) throw thrown;
}
