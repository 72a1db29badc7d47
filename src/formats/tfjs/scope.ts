/**
 * What nodes gave so far: in the graph, and on top of that in one turn of a loop. Nodes of a branch that is not taken give
 * nothing; they are dead, and so is what reads them.
 */
import type { Reference } from "./artifact.js";
import { malformed } from "./json.js";
import type { Slot } from "./value.js";

/** Stands for what a branch that is not taken would give. */
export const DEAD = "dead";

/** What one output of a node gives. */
export type Output = Slot | typeof DEAD;

/** The outputs of nodes by their names. */
export class Scope {
  readonly #outer: Scope | undefined;
  readonly #outputs = new Map<string, readonly Output[] | typeof DEAD>();

  /** @param outer what is known outside of the loop */
  constructor(outer?: Scope) {
    this.#outer = outer;
  }

  /** Whether the node was computed here; what was computed outside of the loop does not count. */
  has(node: string): boolean {
    return this.#outputs.has(node);
  }

  /** Keeps what a node gives. */
  set(node: string, outputs: readonly Output[] | typeof DEAD): void {
    this.#outputs.set(node, outputs);
  }

  /**
   * What a reference stands for; undefined when the node was not computed.
   * @throws PolyheadError MODEL_MALFORMED when the node has no such output
   */
  find({ node, output }: Reference): Output | undefined {
    const outputs = this.#outputs.get(node);
    if (outputs === undefined) return this.#outer?.find({ node, output });
    const found = outputs === DEAD ? DEAD : outputs[output];
    if (found !== undefined) return found;
    throw malformed(`Node ${JSON.stringify(node)} has ${outputs.length} outputs; output ${output} is read.`, {
      node,
    });
  }
}
