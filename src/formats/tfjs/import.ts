/**
 * Import of TF.js graph models: reads `model.json` and its weights, asks the rule of each operator to say in ONNX
 * what its node does, and names the results as TF.js does. All uses of TensorFlow that no rule covers are
 * gathered before the import gives up, so that one attempt shows all that is in the way.
 */
import { asPolyheadError, PolyheadError } from "../../base/errors.js";
import type { Folder } from "../../base/folder.js";
import { type Model, model } from "../../onnx/model.js";
import type { DType } from "../../tensor/dtype.js";
import type { Tensor } from "../../tensor/tensor.js";
import { type Artifact, type PublicTensor, parseArtifact, type TfNode } from "./artifact.js";
import { GraphBuilder, type NamedValue } from "./builder.js";
import { nameOpenSizes } from "./dimension.js";
import { checkInputShape, type InputShapes, statedShape } from "./inputs.js";
import { malformed } from "./json.js";
import { knownElements } from "./known.js";
import { isLoop, type LoopStep, neededSteps, nodesOf, type Step } from "./order.js";
import { Call } from "./rule.js";
import { findRule } from "./rules.js";
import { DEAD, type Output, Scope } from "./scope.js";
import { unsupported } from "./unsupported.js";
import { isTensorList, type Slot, type Value } from "./value.js";
import { loadWeights, type WeightGroup } from "./weights.js";

/** A `model.json` longer than this many bytes is refused; graphs of published models stay below 2 MB. */
const LONGEST_JSON = 2 ** 28;
/** Room for constants made from constants, beside twice the size of the weights. */
const FOLDING_ROOM = 2 ** 24;

/** Loops of more turns are refused, and loops that compute more nodes in all their turns. */
const MOST_TURNS = 1024;
const MOST_LOOP_NODES = 2 ** 16;

/** How a model is imported. */
export interface TfjsImportOptions {
  /** Shapes of inputs that replace those of the file. */
  readonly inputShapes?: InputShapes;
}

/** An imported model, and remarks on what was changed or assumed. */
export interface TfjsImport {
  readonly model: Model;
  readonly notes: string[];
}

/**
 * Imports a TF.js graph model. Inputs and outputs keep TF.js' names, shapes and layout; dtypes are those that
 * TF.js computes in (int64 and uint8 become int32, float16 and float64 become float32).
 * @param modelJsonName the file `model.json`; its weights lie beside it
 * @throws PolyheadError MODEL_UNSUPPORTED with all operators and uses that are not covered, MODEL_MALFORMED,
 * FILE_NOT_FOUND, PATH_REFUSED, LIMIT_EXCEEDED, INVALID_ARGUMENT
 */
export async function importTfjsGraph(
  folder: Folder,
  modelJsonName: string,
  options: TfjsImportOptions = {},
): Promise<TfjsImport> {
  const artifact = parseArtifact(await readText(folder, modelJsonName));
  const steps = neededSteps(artifact);
  refuseUnknownOperators(nodesOf(steps));

  const weights = await loadWeights(folder, besideModel(artifact.weights, modelJsonName));
  const graph = new GraphUnderImport(artifact, weights, options);
  graph.run(steps);
  return graph.finish();
}

async function readText(folder: Folder, name: string): Promise<string> {
  const size = await folder.size(name);
  if (size > LONGEST_JSON) {
    throw new PolyheadError(
      "LIMIT_EXCEEDED",
      `${JSON.stringify(name)} has ${size} bytes; expected the JSON of a graph, of at most ${LONGEST_JSON}.`,
      { size, limit: LONGEST_JSON },
    );
  }
  return new TextDecoder().decode(await folder.read(name));
}

function besideModel(groups: readonly WeightGroup[], modelJsonName: string): WeightGroup[] {
  const directory = modelJsonName.slice(0, modelJsonName.lastIndexOf("/") + 1);
  return groups.map((group) => ({ ...group, paths: group.paths.map((path) => directory + path) }));
}

/** Operators that are not looked up in the table of rules. */
const LEAVES: ReadonlySet<string> = new Set(["Const", "Placeholder", "PlaceholderV2"]);
const BRANCHES: ReadonlySet<string> = new Set(["Switch", "Merge"]);

function refuseUnknownOperators(nodes: readonly TfNode[]): void {
  const unknown = new Map<string, string>();
  for (const { op, name } of nodes) {
    if (!LEAVES.has(op) && !BRANCHES.has(op) && !findRule(op) && !unknown.has(op)) unknown.set(op, name);
  }
  if (unknown.size === 0) return;
  const operators = [...unknown.keys()].sort();
  throw new PolyheadError(
    "MODEL_UNSUPPORTED",
    `The model uses operators that cannot be imported: ${operators.join(", ")}. Functions, strings and tables ` +
      "are not covered; export the model without them (fixed shapes, no postprocessing).",
    { operators, examples: Object.fromEntries(unknown) },
  );
}

const HINT =
  " Where that follows from the input's sizes, state its shape: --input-shape, in a program inputShapes.";

/** The state of one import. */
class GraphUnderImport {
  readonly #artifact: Artifact;
  readonly #weights: ReadonlyMap<string, Tensor>;
  readonly #options: TfjsImportOptions;
  readonly #builder: GraphBuilder;
  #scope = new Scope();
  /** Constants once for all turns of loops. */
  readonly #constants = new Map<string, Value>();
  /** Nodes that were computed in turns of loops. */
  #loopNodes = 0;
  /** Reasons that were met, each with the first node it was met at. */
  readonly #reasons = new Map<string, string>();
  readonly #notes: string[] = [];

  constructor(artifact: Artifact, weights: ReadonlyMap<string, Tensor>, options: TfjsImportOptions) {
    this.#artifact = artifact;
    this.#weights = weights;
    this.#options = options;
    let bytes = FOLDING_ROOM;
    for (const { data } of weights.values()) bytes += 2 * (ArrayBuffer.isView(data) ? data.byteLength : 0);
    this.#builder = new GraphBuilder(bytes);
    this.#declareInputs();
  }

  /** Computes steps whose inputs were computed before. */
  run(steps: readonly Step[]): void {
    for (const step of steps) {
      const { name } = isLoop(step) ? { name: step.frame } : step;
      const op = isLoop(step) ? "a loop" : step.op;
      try {
        if (isLoop(step)) this.#loop(step);
        else this.#add(step);
      } catch (thrown) {
        const error = asPolyheadError(thrown, "MODEL_MALFORMED", `Node ${JSON.stringify(name)} (${op})`);
        if (error.code !== "MODEL_UNSUPPORTED") throw located(error, name, op);
        const reason = `${op}: ${error.message}`;
        if (!this.#reasons.has(reason)) this.#reasons.set(reason, name);
      }
    }
  }

  #add(node: TfNode): void {
    if (this.#scope.has(node.name) || this.#isInput(node)) return;
    this.#builder.enter(node.name);
    const made = this.#compute(node);
    if (made === undefined) return; // what it reads is not covered, which is on the list already
    if (made !== DEAD) {
      for (const [index, value] of made.entries()) {
        if (value === DEAD || isTensorList(value)) continue;
        this.#builder.name(value, index === 0 ? node.name : `${node.name}:${index}`);
      }
    }
    this.#scope.set(node.name, made);
  }

  #isInput({ name, op }: TfNode): boolean {
    return op !== "Const" && LEAVES.has(op) && this.#scope.find({ node: name, output: 0 }) !== undefined;
  }

  #compute(node: TfNode): readonly Output[] | typeof DEAD | undefined {
    if (node.op === "Const") return [this.#constant(node)];
    if (node.op === "Merge") return this.#merge(node);
    const inputs = node.inputs.map((input) => this.#scope.find(input));
    if (inputs.includes(undefined)) return undefined;
    if (inputs.includes(DEAD)) return DEAD;
    const slots = inputs.filter((input) => input !== undefined && input !== DEAD);
    return node.op === "Switch" ? this.#switch(node, slots) : this.#apply(node, slots);
  }

  /** Sends its value to the one or the other branch. */
  #switch(node: TfNode, [value, condition]: readonly Slot[]): readonly Output[] {
    if (!value || !condition) throw malformed(`Node ${JSON.stringify(node.name)} (Switch) lacks an input.`);
    const isTaken = truth(condition);
    if (isTaken === undefined) throw unsupported("a condition that depends on an input");
    return isTaken ? [DEAD, value] : [value, DEAD];
  }

  /** Takes what comes from the branch that was taken, and tells which one that was. */
  #merge(node: TfNode): readonly Output[] | typeof DEAD | undefined {
    const inputs = node.inputs.map((input) => this.#scope.find(input));
    if (inputs.includes(undefined)) return undefined;
    const [taken, ...others] = [...inputs.entries()].filter(([, input]) => input !== DEAD);
    if (!taken) return DEAD;
    if (others.length > 0)
      throw unsupported("branches of constants, which readers of the file tell apart in different ways");
    const [index, value] = taken;
    return [value ?? DEAD, this.#builder.scalar("int32", index)];
  }

  /** Writes a loop out turn by turn; what it decides about must be known now. */
  #loop(loop: LoopStep): void {
    const outer = this.#scope;
    let values = loop.variables.map(({ enter }) => outer.find({ node: enter, output: 0 }));
    try {
      for (let turn = 0; ; turn++) {
        if (values.includes(undefined)) return; // a part is not covered, which is on the list already
        const now = values.map((value) => value ?? DEAD);
        if (now.includes(DEAD)) {
          this.#leave(loop, outer, now);
          return;
        }
        this.#scope = new Scope(outer);
        this.#bind(loop, now);
        this.run(loop.check);
        const condition = this.#scope.find(loop.condition);
        if (condition === undefined) return;
        const goesOn = condition === DEAD ? false : truth(condition);
        if (goesOn === undefined) throw unsupported("its number of turns is known at run time only");
        if (!goesOn) {
          this.#leave(loop, outer, now);
          return;
        }
        this.#loopNodes += loop.check.length + loop.body.length;
        if (turn >= MOST_TURNS || this.#loopNodes > MOST_LOOP_NODES)
          throw unsupported(`more than ${MOST_TURNS} turns, or ${MOST_LOOP_NODES} nodes in all of them`);
        this.run(loop.body);
        values = loop.variables.map(({ next }) => this.#scope.find(next));
      }
    } finally {
      this.#scope = outer;
    }
  }

  #bind(loop: LoopStep, values: readonly Output[]): void {
    for (const [at, { merge, switched }] of loop.variables.entries()) {
      const value = values[at] ?? DEAD;
      this.#scope.set(merge, [value]);
      if (switched !== undefined) this.#scope.set(switched, [DEAD, value]);
    }
  }

  /** What the variables hold in the end is what the loop gives. */
  #leave(loop: LoopStep, outer: Scope, values: readonly Output[]): void {
    for (const [at, { exit }] of loop.variables.entries())
      if (exit !== undefined) outer.set(exit, [values[at] ?? DEAD]);
  }

  /** The model, when all nodes were covered. */
  finish(): TfjsImport {
    this.#refuseUncovered();
    const outputs = uniqueNames(this.#artifact.outputs).map(({ name, reference }): NamedValue => {
      const value = this.#scope.find(reference);
      if (!value || value === DEAD || isTensorList(value))
        throw malformed(`The output ${JSON.stringify(name)} is made by no node.`, { output: name });
      return { name, value };
    });
    if (outputs.length === 0) throw malformed("The graph has no outputs.");
    return { model: model(this.#builder.finish("tfjs", outputs)), notes: this.#notes };
  }

  #apply(node: TfNode, inputs: readonly Slot[]): readonly Slot[] {
    const rule = findRule(node.op);
    if (!rule)
      throw malformed(`Node ${JSON.stringify(node.name)} (${node.op}) is an input that no signature names.`);
    const made = rule(new Call(this.#builder, node, inputs));
    return "id" in made || "elements" in made ? [made] : made;
  }

  #constant(node: TfNode): Value {
    const found = this.#constants.get(node.name);
    if (found) return found;
    const tensor = this.#weights.get(node.name);
    if (!tensor) {
      throw malformed(
        `The weights have no ${JSON.stringify(node.name)}; the file or its manifest is cut off.`,
        {
          weight: node.name,
        },
      );
    }
    const value = this.#builder.constant(tensor);
    this.#builder.name(value, node.name);
    this.#constants.set(node.name, value);
    return value;
  }

  /** Declares the inputs of the signature in its order, then all that it does not name. */
  #declareInputs(): void {
    const named = new Set(this.#artifact.inputs.map((input) => input.reference.node));
    const others = [...this.#artifact.nodes.values()].filter(
      (node) => LEAVES.has(node.op) && node.op !== "Const",
    );
    const inputs = [
      ...this.#artifact.inputs,
      ...others
        .filter((node) => !named.has(node.name))
        .map((node) => ({ name: node.name, reference: { node: node.name, output: 0 }, shape: undefined })),
    ];
    for (const input of uniqueNames(inputs)) {
      const node = this.#artifact.nodes.get(input.reference.node);
      if (!node)
        throw malformed(
          `The signature names an input ${JSON.stringify(input.reference.node)} that is no node.`,
        );
      if (node.op === "PlaceholderWithDefault") {
        this.#notes.push(
          `The input ${JSON.stringify(input.name)} has a default, which is used; it cannot be given.`,
        );
      }
      if (!LEAVES.has(node.op) || this.#scope.has(node.name)) continue;
      this.#scope.set(node.name, [this.#declare(input, node)]);
    }
  }

  #declare(input: PublicTensor, node: TfNode): Value {
    const dtype: DType | undefined = node.attributes.dtype("dtype");
    if (!dtype || dtype === "string") {
      throw new PolyheadError(
        "MODEL_UNSUPPORTED",
        `The input ${JSON.stringify(input.name)} is of a dtype that no tensor of numbers has.`,
        { input: input.name },
      );
    }
    const { length: count } = this.#artifact.inputs;
    const stated = statedShape(this.#options.inputShapes, input.name, count);
    const own = node.attributes.shape("shape");
    const shape = stated ?? (own && own.length > 0 ? own : (input.shape ?? own));
    if (!shape) {
      throw new PolyheadError(
        "MODEL_UNSUPPORTED",
        `The input ${JSON.stringify(input.name)} may have any rank; state its shape (--input-shape, in a program inputShapes).`,
        { input: input.name },
      );
    }
    checkInputShape(shape, input.name);
    return this.#builder.input(input.name, dtype, nameOpenSizes(shape, count <= 1 ? "" : `${input.name}_`));
  }

  #refuseUncovered(): void {
    if (this.#reasons.size === 0) return;
    const reasons = [...this.#reasons].map(([reason, node]) => `${reason} (at ${JSON.stringify(node)})`);
    const isOpen = reasons.some((reason) => reason.includes("known at run time only"));
    throw new PolyheadError(
      "MODEL_UNSUPPORTED",
      `The model uses what cannot be imported: ${reasons.join("; ")}.${isOpen ? HINT : ""}`,
      {
        reasons: [...this.#reasons.keys()],
        nodes: [...this.#reasons.values()],
      },
    );
  }
}

/** Gives later ones of equal names a number. */
function uniqueNames(tensors: readonly PublicTensor[]): PublicTensor[] {
  const taken = new Set<string>();
  return tensors.map((tensor) => {
    let name = tensor.name;
    for (let copy = 1; taken.has(name); copy++) name = `${tensor.name}_${copy}`;
    taken.add(name);
    return { ...tensor, name };
  });
}

/** Whether a condition holds; undefined when that is not known at import. */
function truth(condition: Slot): boolean | undefined {
  const [first] = isTensorList(condition) ? [] : (knownElements(condition) ?? []);
  return typeof first === "number" ? first !== 0 : undefined;
}

function located(error: PolyheadError, name: string, op: string): PolyheadError {
  if (error.message.includes(JSON.stringify(name))) return error;
  const message = `Node ${JSON.stringify(name)} (${op}): ${error.message}`;
  return new PolyheadError(
    error.code,
    message,
    { ...error.details, node: name, operator: op },
    { cause: error },
  );
}
