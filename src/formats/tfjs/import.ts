/**
 * Import of TF.js graph models: reads `model.json` and its weights, asks the rule of each operator to say in ONNX
 * what its node does, and names the results as TF.js does. All uses of TensorFlow that no rule covers are
 * gathered before the import gives up, so that one attempt shows all that is in the way.
 */
import { asPolyheadError, PolyheadError } from "../../base/errors.js";
import type { Folder } from "../../base/folder.js";
import { type Model, model } from "../../onnx/model.js";
import type { DType } from "../../tensor/dtype.js";
import type { SymbolicShape } from "../../tensor/shape.js";
import type { Tensor } from "../../tensor/tensor.js";
import { type Artifact, type PublicTensor, parseArtifact, type Reference, type TfNode } from "./artifact.js";
import { GraphBuilder, type NamedValue } from "./builder.js";
import { nameOpenSizes } from "./dimension.js";
import { malformed } from "./json.js";
import { neededNodes } from "./order.js";
import { Call } from "./rule.js";
import { findRule } from "./rules.js";
import type { Value } from "./value.js";
import { loadWeights, type WeightGroup } from "./weights.js";

/** A `model.json` longer than this many bytes is refused; graphs of published models stay below 2 MB. */
const LONGEST_JSON = 2 ** 28;
/** Room for constants made from constants, beside twice the size of the weights. */
const FOLDING_ROOM = 2 ** 24;

/** How a model is imported. */
export interface TfjsImportOptions {
  /** Shapes of inputs that replace those of the file, by name; -1 or a name for an open size. */
  readonly inputShapes?: Readonly<Record<string, SymbolicShape>>;
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
  const { nodes, cycle } = neededNodes(artifact);
  refuseUnknownOperators(nodes);
  if (cycle) throw malformed(`The graph runs in a circle through ${cycle.join(" and ")}.`, { nodes: cycle });

  const weights = await loadWeights(folder, besideModel(artifact.weights, modelJsonName));
  const graph = new GraphUnderImport(artifact, weights, options);
  for (const node of nodes) graph.add(node);
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

function refuseUnknownOperators(nodes: readonly TfNode[]): void {
  const unknown = new Map<string, string>();
  for (const { op, name } of nodes) {
    if (!LEAVES.has(op) && !findRule(op) && !unknown.has(op)) unknown.set(op, name);
  }
  if (unknown.size === 0) return;
  const operators = [...unknown.keys()].sort();
  throw new PolyheadError(
    "MODEL_UNSUPPORTED",
    `The model uses operators that cannot be imported: ${operators.join(", ")}. Control flow, strings and tables ` +
      "are not covered; export the model without them (fixed shapes, no postprocessing).",
    { operators, examples: Object.fromEntries(unknown) },
  );
}

/** The state of one import. */
class GraphUnderImport {
  readonly #artifact: Artifact;
  readonly #weights: ReadonlyMap<string, Tensor>;
  readonly #options: TfjsImportOptions;
  readonly #builder: GraphBuilder;
  readonly #outputs = new Map<string, readonly Value[]>();
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

  /** Adds a node whose inputs were added before. */
  add(node: TfNode): void {
    if (this.#outputs.has(node.name)) return;
    this.#builder.enter(node.name);
    if (node.op === "Const") {
      this.#outputs.set(node.name, [this.#constant(node)]);
      return;
    }
    const inputs = node.inputs.map((input) => this.#find(input));
    const present = inputs.filter((input) => input !== undefined);
    if (present.length < inputs.length) return; // what it reads is not covered, which is on the list already
    try {
      const made = this.#apply(node, present);
      for (const [index, value] of made.entries()) {
        this.#builder.name(value, index === 0 ? node.name : `${node.name}:${index}`);
      }
      this.#outputs.set(node.name, made);
    } catch (thrown) {
      const error = asPolyheadError(
        thrown,
        "MODEL_MALFORMED",
        `Node ${JSON.stringify(node.name)} (${node.op})`,
      );
      if (error.code !== "MODEL_UNSUPPORTED") throw located(error, node);
      const reason = `${node.op}: ${error.message}`;
      if (!this.#reasons.has(reason)) this.#reasons.set(reason, node.name);
    }
  }

  /** The model, when all nodes were covered. */
  finish(): TfjsImport {
    this.#refuseUncovered();
    const outputs = uniqueNames(this.#artifact.outputs).map(({ name, reference }): NamedValue => {
      const value = this.#find(reference);
      if (!value) throw malformed(`The output ${JSON.stringify(name)} is made by no node.`, { output: name });
      return { name, value };
    });
    if (outputs.length === 0) throw malformed("The graph has no outputs.");
    return { model: model(this.#builder.finish("tfjs", outputs)), notes: this.#notes };
  }

  #apply(node: TfNode, inputs: readonly Value[]): readonly Value[] {
    const rule = findRule(node.op);
    if (!rule)
      throw malformed(`Node ${JSON.stringify(node.name)} (${node.op}) is an input that no signature names.`);
    const made = rule(new Call(this.#builder, node, inputs));
    return "id" in made ? [made] : made;
  }

  #find({ node, output }: Reference): Value | undefined {
    const outputs = this.#outputs.get(node);
    if (!outputs) return undefined;
    const value = outputs[output];
    if (value) return value;
    throw malformed(`Node ${JSON.stringify(node)} has ${outputs.length} outputs; output ${output} is read.`, {
      node,
    });
  }

  #constant(node: TfNode): Value {
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
      if (!LEAVES.has(node.op) || this.#outputs.has(node.name)) continue;
      this.#outputs.set(node.name, [this.#declare(input, node)]);
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
    const given = this.#options.inputShapes;
    const stated = given && Object.hasOwn(given, input.name) ? given[input.name] : undefined;
    const own = node.attributes.shape("shape");
    const shape = stated ?? (own && own.length > 0 ? own : (input.shape ?? own));
    if (!shape) {
      throw new PolyheadError(
        "MODEL_UNSUPPORTED",
        `The input ${JSON.stringify(input.name)} may have any rank; state its shape in the option inputShapes.`,
        { input: input.name },
      );
    }
    if (
      shape.some(
        (size) => typeof size === "number" && !(Number.isInteger(size) && size >= -1 && size < 2 ** 31),
      )
    ) {
      throw new PolyheadError(
        "INVALID_ARGUMENT",
        `The shape [${shape.join(", ")}] of the input ${JSON.stringify(input.name)} is none; expected sizes, -1 or names.`,
        { input: input.name, shape },
      );
    }
    const isOnly = this.#artifact.inputs.length <= 1;
    return this.#builder.input(input.name, dtype, nameOpenSizes(shape, isOnly ? "" : `${input.name}_`));
  }

  #refuseUncovered(): void {
    if (this.#reasons.size === 0) return;
    const reasons = [...this.#reasons].map(([reason, node]) => `${reason} (at ${JSON.stringify(node)})`);
    throw new PolyheadError(
      "MODEL_UNSUPPORTED",
      `The model uses what cannot be imported: ${reasons.join("; ")}.`,
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

function located(error: PolyheadError, node: TfNode): PolyheadError {
  if (error.message.includes(JSON.stringify(node.name))) return error;
  const message = `Node ${JSON.stringify(node.name)} (${node.op}): ${error.message}`;
  return new PolyheadError(
    error.code,
    message,
    { ...error.details, node: node.name, operator: node.op },
    { cause: error },
  );
}
