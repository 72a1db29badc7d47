/** `polyhead import`: a model of another format, or an ONNX file as it came, checked and described. */
import { type Command, InvalidArgumentError, Option } from "commander";
import { asError, PolyheadError } from "../../base/errors.js";
import { readFileBytes, saveModel } from "../../files/disk.js";
import type { Architecture } from "../../formats/index.js";
import { parameterCount } from "../../onnx/cost.js";
import { GraphIndex } from "../../onnx/graph.js";
import { ACTIVATIONS } from "../../onnx/metadata.js";
import { declaredType, type ValueInfo } from "../../onnx/model.js";
import { formatShape } from "../../tensor/shape.js";
import { count, table } from "../format.js";
import { importFolder, isMixedFolder } from "../import-folder.js";
import { type ImportOptions, importModel, MODEL_RECIPES } from "../import-model.js";
import { type Outcome, performs } from "../outcome.js";

interface Options extends Omit<ImportOptions, "changes" | "torch" | "backbone"> {
  readonly out: string;
  readonly for?: string;
  readonly head?: string;
  readonly architecture?: string;
  readonly hidden?: string;
  readonly size?: Readonly<Record<string, unknown>>;
  readonly set?: Readonly<Record<string, unknown>>;
}

/** Adds the verb. */
export function addImport(program: Command): void {
  const command = program
    .command("import")
    .description("bring a model of another format or an ONNX file in, checked in the runtime")
    .argument("<file>", "the model's file or folder, or a folder of mixed files")
    .requiredOption("-o, --out <file>", "ONNX file to write; of a folder of mixed files, the folder for them")
    .option("--recipe <name>", `all that follows at once: ${Object.keys(MODEL_RECIPES).join(", ")}`)
    .option("--preprocess <recipe>", "how an image becomes the input")
    .option("--size <HxW>", "height and width of the input; by default what the model says", parseSize)
    .option("--set <key=json>", "another setting of the preprocessing; can be repeated", parseSetting)
    .option("--labels <file|coco>", "class names: one a line, or a JSON list")
    .option("--task <name>", "classification, detection, embedding or a word of yours")
    .option("--decode <recipe|json>", "what a detector's outputs mean: centernet, or JSON")
    .addOption(
      new Option("--activation <name>", "what turns a classifier's numbers into scores").choices(ACTIVATIONS),
    )
    .option("--for <backbone>", "ONNX file that makes the features which the head reads, on your word")
    .option("--tap <name>", "which of its values; by default the one output of the right type")
    .option(
      "--input-shape <sizes>",
      "shape of the only input, such as batch,512,7,7, where the file leaves it open",
      parseShape,
    )
    .option("--head <path>", "PyTorch: this part only, such as fc or model.classifier")
    .option("--architecture <file|json>", "PyTorch: the layers that the weights belong to")
    .option("--hidden <activation>", "PyTorch: what stands between layers of a chain: relu, gelu, ..., none");
  performs(command, perform);
}

async function perform(path: string, options: Options): Promise<Outcome> {
  if (await isMixedFolder(path)) return performFolder(path, options);
  const { out, size, set, for: backbone, head, architecture, hidden, ...given } = options;
  const torch = {
    ...(head !== undefined && { head }),
    ...(architecture !== undefined && { architecture: await readArchitecture(architecture) }),
    ...(hidden !== undefined && { hidden }),
  };
  const { model, notes } = await importModel(path, {
    ...given,
    backbone,
    torch,
    changes: { ...size, ...set },
  });
  const index = new GraphIndex(model.graph);
  const [inputs, outputs] = [index.inputs, model.graph.output].map((list) => list.map(summary));
  const parameters = parameterCount(model);
  await saveModel(out, model);
  const lines = (kind: string, list: ReturnType<typeof summary>[] = []) =>
    list.map(({ name, dtype, shape }) => `  ${kind} ${name}: ${dtype} ${formatShape(shape)}`);
  return {
    data: { path: out, inputs, outputs, parameters, notes },
    text: [
      ...notes,
      `${out}: ${count(parameters)} parameters`,
      ...lines("input", inputs),
      ...lines("output", outputs),
    ],
  };
}

/** Exit status 65 when a model was refused; what came in stays. */
async function performFolder(
  path: string,
  { out, json: _, ...others }: Options & { json?: boolean },
): Promise<Outcome> {
  const [option] = Object.keys(others);
  if (option !== undefined) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `${JSON.stringify(path)} is a folder of mixed files, and --${option} is about one model; import that one by itself.`,
      { option },
    );
  }
  const files = await importFolder(path, out);
  const error = files.find((each) => each.error)?.error;
  if (error) process.exitCode = 65;
  const rows = files.map(({ file, is, outcome, path: target, of, error: why }) => [
    file,
    is,
    outcome === "part" ? `part of ${of}` : outcome === "imported" ? (target ?? "") : outcome,
    why ? `${why.message} (${why.code})` : "",
  ]);
  return { data: { path: out, files }, text: table([["file", "is", "became", "why not"], ...rows]) };
}

function summary(info: ValueInfo) {
  const type = declaredType(info);
  return { name: info.name, dtype: type?.dtype ?? "unknown", shape: type?.shape ?? ["?"] };
}

function parseShape(text: string): (number | string)[] {
  return text.split(",").map((size) => (/^-?\d+$/.test(size.trim()) ? Number(size) : size.trim()));
}

/** JSON text, or a file of it. What it says is checked by the import. */
async function readArchitecture(source: string): Promise<Architecture> {
  const isText = /^\s*[[{]/.test(source);
  const text = isText ? source : new TextDecoder().decode(await readFileBytes(source, LONGEST_ARCHITECTURE));
  try {
    return JSON.parse(text);
  } catch (thrown) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `The architecture ${isText ? "" : `in ${JSON.stringify(source)} `}is not JSON: ${asError(thrown).message}`,
    );
  }
}

const LONGEST_ARCHITECTURE = 2 ** 20;

function parseSize(text: string): Readonly<Record<string, unknown>> {
  const [, height, width] = /^(\d{1,5})x(\d{1,5})$/.exec(text) ?? [];
  if (height === undefined) throw new InvalidArgumentError("Expected height x width, such as 224x224.");
  return { height: Number(height), width: Number(width) };
}

function parseSetting(
  text: string,
  earlier: Readonly<Record<string, unknown>> = {},
): Readonly<Record<string, unknown>> {
  const at = text.indexOf("=");
  if (at < 1) throw new InvalidArgumentError("Expected key=json, such as range=[0,255] or fit=cover.");
  const value = text.slice(at + 1);
  return { ...earlier, [text.slice(0, at)]: parseJson(value) };
}

/** Words need no quotes. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
