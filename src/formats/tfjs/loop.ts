/**
 * Loops as TensorFlow writes them into a graph: Enter, Merge, LoopCond, Switch, NextIteration and Exit, which send values
 * around in a circle. Here they are found and given back their structure: variables, a condition and a body.
 */
import type { Reference, TfNode } from "./artifact.js";
import { malformed } from "./json.js";

/** A value that changes from turn to turn. */
export interface LoopVariable {
  /** The Merge node, which is the variable's value while the condition is computed. */
  readonly merge: string;
  /** The Enter node, which holds the value for the first turn. */
  readonly enter: string;
  /** What holds the value for the next turn. */
  readonly next: Reference;
  /** The Switch node, whose second output is the value within the body; undefined when the body does not read it. */
  readonly switched: string | undefined;
  /** The Exit node, which is the value behind the loop; undefined when nobody reads it. */
  readonly exit: string | undefined;
}

/** A loop: while the condition holds, all variables get their next values. */
export interface Loop {
  /** TensorFlow's name for it. */
  readonly frame: string;
  readonly variables: readonly LoopVariable[];
  readonly condition: Reference;
}

type Nodes = ReadonlyMap<string, TfNode>;

/**
 * The loops of a graph, by each of their Exit nodes. Nodes of no loop in this form are left out.
 * @throws PolyheadError MODEL_MALFORMED when the parts of a loop do not fit together
 */
export function findLoops(nodes: Nodes): ReadonlyMap<string, Loop> {
  const isOfLoop = (node: TfNode) => nodes.get(node.inputs[1]?.node ?? "")?.op === "LoopCond";
  const switches = readersOf(nodes, (node) => node.op === "Switch" && isOfLoop(node));
  const exits = readersOf(nodes, ({ op }) => op === "Exit");
  const frames = new Map<string, { variables: LoopVariable[]; conditions: Set<string> }>();
  for (const node of nodes.values()) {
    if (node.op !== "Merge") continue;
    const inputs = node.inputs.map((input) => nodes.get(input.node));
    const enter = inputs.find((input) => input?.op === "Enter");
    const turn = inputs.find((input) => input?.op === "NextIteration");
    const next = turn?.inputs[0];
    if (!enter || !next) continue;
    const frame = enter.attributes.text("frame_name", "");
    const { variables, conditions } = frames.get(frame) ?? { variables: [], conditions: new Set<string>() };
    frames.set(frame, { variables, conditions });
    const switched = switches.get(node.name);
    const exit = switched && exits.get(switched.name)?.name;
    variables.push({ merge: node.name, enter: enter.name, next, switched: switched?.name, exit });
    const condition = switched?.inputs[1]?.node;
    if (condition !== undefined) conditions.add(condition);
  }
  const found = new Map<string, Loop>();
  for (const [frame, { variables, conditions }] of frames) {
    const [name = "", ...others] = conditions;
    const condition = nodes.get(name);
    if (condition?.op !== "LoopCond" || others.length > 0)
      throw malformed(`The loop ${JSON.stringify(frame)} has no single condition.`, { frame });
    const loop = { frame, variables, condition: { node: name, output: 0 } };
    for (const { exit } of variables) if (exit !== undefined) found.set(exit, loop);
  }
  return found;
}

/** Nodes of one kind by the node that their first input comes from. */
function readersOf(nodes: Nodes, isWanted: (node: TfNode) => boolean): ReadonlyMap<string, TfNode> {
  const found = new Map<string, TfNode>();
  for (const node of nodes.values()) {
    const from = isWanted(node) ? node.inputs[0]?.node : undefined;
    if (from !== undefined) found.set(from, node);
  }
  return found;
}
