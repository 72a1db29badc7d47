/**
 * The order in which a graph can be computed: the steps that the outputs need, each after what it reads. A step is a node,
 * or a loop as a whole with the steps of its own. Iterative, so that a chain of any length is fine; loops within loops
 * recurse.
 */
import type { Artifact, Reference, TfNode } from "./artifact.js";
import { malformed } from "./json.js";
import { findLoops, type Loop } from "./loop.js";
import { unsupported } from "./unsupported.js";

/** Loops within loops deeper than this are refused. */
const DEEPEST_LOOPS = 8;

/** A loop, and what is computed in each of its turns. */
export interface LoopStep extends Loop {
  /** Steps that the condition needs, computed before it is looked at. */
  readonly check: readonly Step[];
  /** Steps that the next values need, computed when the condition holds. */
  readonly body: readonly Step[];
  /** Enter nodes that the loop reads. */
  readonly enters: readonly string[];
}

/** What is computed in one go. */
export type Step = TfNode | LoopStep;

/** Whether it is a loop. */
export function isLoop(step: Step): step is LoopStep {
  return "frame" in step;
}

/** Steps in order. */
interface Sorted {
  readonly steps: Step[];
  /** Bound nodes that were met. */
  readonly met: ReadonlySet<string>;
}

/**
 * Sorts what the outputs need.
 * @throws PolyheadError MODEL_MALFORMED when a node reads from one that is not there or the graph runs in a circle;
 * MODEL_UNSUPPORTED for loops deep within loops
 */
export function neededSteps(artifact: Artifact): Step[] {
  const outputs = artifact.outputs.map(({ reference }) => reference);
  return new Sorter(artifact.nodes).sort(outputs, new Set()).steps;
}

/** All nodes of steps, those of loops too. */
export function nodesOf(steps: readonly Step[]): TfNode[] {
  return steps.flatMap((step) => (isLoop(step) ? nodesOf([...step.check, ...step.body]) : [step]));
}

class Sorter {
  readonly #nodes: ReadonlyMap<string, TfNode>;
  readonly #loops: ReadonlyMap<string, Loop>;
  /** Loops that were sorted, or are being sorted. */
  readonly #steps = new Map<Loop, LoopStep | "open">();
  #depth = 0;

  constructor(nodes: ReadonlyMap<string, TfNode>) {
    this.#nodes = nodes;
    this.#loops = findLoops(nodes);
  }

  /** Steps that compute the roots from the bound nodes, whose values are there. */
  sort(roots: readonly Reference[], bound: ReadonlySet<string>): Sorted {
    const steps: Step[] = [];
    const met = new Set<string>();
    const state = new Map<Step, "open" | "done">();
    const stack: Step[] = [];
    const visit = (names: readonly string[], reader: string) => {
      for (const name of names.toReversed()) {
        if (bound.has(name)) {
          met.add(name);
          continue;
        }
        const step = this.#step(name, reader);
        if (state.get(step) === undefined) stack.push(step);
        else if (state.get(step) === "open")
          throw malformed(`The graph runs in a circle through ${nameOf(step)} and ${reader}.`, {
            nodes: [nameOf(step), reader],
          });
      }
    };
    visit(
      roots.map(({ node }) => node),
      "the signature",
    );
    while (stack.length > 0) {
      const step = stack.at(-1);
      if (step === undefined) break;
      if (state.get(step) === undefined) {
        state.set(step, "open");
        visit(this.#inputsOf(step), nameOf(step));
        continue;
      }
      stack.pop();
      if (state.get(step) !== "open") continue;
      state.set(step, "done");
      steps.push(step);
    }
    return { steps, met };
  }

  /** The node of a name; the loop, where the node is one of its exits. */
  #step(name: string, reader: string): Step {
    const node = this.#nodes.get(name);
    if (!node)
      throw malformed(
        `There is no node ${JSON.stringify(name)}, from which ${JSON.stringify(reader)} reads.`,
        {
          missing: name,
          reader,
        },
      );
    const loop = this.#loops.get(name);
    return loop ? this.#loopStep(loop) : node;
  }

  #inputsOf(step: Step): readonly string[] {
    if (isLoop(step)) return step.enters;
    return step.inputs.map(({ node }) => node);
  }

  #loopStep(loop: Loop): LoopStep {
    const found = this.#steps.get(loop);
    if (found === "open")
      throw malformed(`The loop ${JSON.stringify(loop.frame)} is within itself.`, { frame: loop.frame });
    if (found) return found;
    if (this.#depth >= DEEPEST_LOOPS)
      throw unsupported(`loops within loops, more than ${DEEPEST_LOOPS} deep`);
    this.#steps.set(loop, "open");
    this.#depth++;
    const enters = [...this.#nodes.values()].filter(
      ({ op, attributes }) => op === "Enter" && attributes.text("frame_name", "") === loop.frame,
    );
    const variables = loop.variables.flatMap(({ merge, switched }) => [
      merge,
      ...(switched ? [switched] : []),
    ]);
    const bound = new Set([...enters.map(({ name }) => name), ...variables]);
    const check = this.sort([loop.condition], bound);
    const body = this.sort(
      loop.variables.map(({ next }) => next),
      bound,
    );
    this.#depth--;
    const met = new Set([...check.met, ...body.met, ...loop.variables.map(({ enter }) => enter)]);
    const step: LoopStep = {
      ...loop,
      check: check.steps,
      body: body.steps,
      enters: enters.map(({ name }) => name).filter((name) => met.has(name)),
    };
    this.#steps.set(loop, step);
    return step;
  }
}

function nameOf(step: Step): string {
  return isLoop(step) ? step.frame : step.name;
}
