/** `polyhead run`: models, or a backbone with its heads, on arrays or on images. */
import { basename, extname, join } from "node:path";
import { type Command, InvalidArgumentError } from "commander";
import { PolyheadError } from "../../base/errors.js";
import { readFileBytes, writeFileAtomic } from "../../files/disk.js";
import { readNpz, writeNpz } from "../../tensor/npz.js";
import { formatShape } from "../../tensor/shape.js";
import { annotate } from "../../vision/draw.js";
import { decodeImage } from "../../vision/image.js";
import { type Outcome, performs } from "../outcome.js";
import { progressBar } from "../progress.js";
import { openRoutes, type Routes } from "../routes.js";
import { runArrays } from "../run-arrays.js";
import { groupByPreprocessing, type ImageAnswer, runImage } from "../run-images.js";

interface Options {
  readonly npz?: string;
  readonly out?: string;
  readonly image?: readonly string[];
  readonly annotate?: string;
  readonly bind?: Readonly<Record<string, string>>;
}

/** Adds the verb. */
export function addRun(program: Command): void {
  const command = program
    .command("run")
    .description("run models, or a backbone with its heads, on arrays or images")
    .argument("<models...>", "ONNX files; each answers under its file's name")
    .option("--npz <file>", "arrays by the names of the inputs")
    .option("--out <file>", "npz file for the outputs")
    .option("--image <files...>", "JPEG, PNG or WebP files")
    .option("--annotate <folder>", "write each image as PNG with the results drawn in")
    .option("--bind <input=tap>", "let a head's input read this tap; can be repeated", parseBinding);
  performs(command, perform);
}

async function perform(paths: readonly string[], options: Options): Promise<Outcome> {
  const { npz, out, image, annotate: folder, bind } = options;
  if ((npz === undefined) === (image === undefined)) throw wrong("Expected either --npz or --image.");
  if ((npz === undefined) !== (out === undefined)) throw wrong("--npz and --out go together.");
  if (folder !== undefined && !image) throw wrong("--annotate goes with --image.");
  const arrays = npz === undefined ? undefined : readNpz(await readFileBytes(npz));
  const pictures = image ? picturePaths(image, folder) : undefined;
  const routes = await openRoutes(paths, bind);
  try {
    for (const note of routes.notes) process.stderr.write(`polyhead: ${note}\n`);
    if (arrays && out !== undefined) return await onArrays(routes, arrays, out);
    return await onImages(routes, pictures ?? new Map());
  } finally {
    await routes.engine.close();
  }
}

async function onArrays(routes: Routes, arrays: ReturnType<typeof readNpz>, out: string): Promise<Outcome> {
  const { outputs, ignored } = await runArrays(routes, arrays);
  if (ignored.length > 0) {
    process.stderr.write(`polyhead: no model takes ${ignored.join(", ")}; ignored\n`);
  }
  await writeFileAtomic(out, writeNpz(outputs));
  const written = [...outputs].map(([name, { dtype, shape }]) => ({ name, dtype, shape }));
  return {
    data: { path: out, outputs: written, ignored },
    text: [out, ...written.map(({ name, dtype, shape }) => `  ${name}: ${dtype} ${formatShape(shape)}`)],
  };
}

/** Pictures are written when all images are answered, so that a failure leaves none behind. */
async function onImages(routes: Routes, pictures: ReadonlyMap<string, string | undefined>): Promise<Outcome> {
  const groups = groupByPreprocessing(routes);
  const bar = progressBar("images");
  const remarks = new Set<string>();
  const drawn: [path: string, png: Uint8Array][] = [];
  const results: { path: string; annotated?: string; routes: Record<string, ImageAnswer> }[] = [];
  for (const [path, target] of pictures) {
    const image = await decodeImage(path);
    const answers = await runImage(routes, groups, image, (text) => remarks.add(text));
    if (target !== undefined) {
      const { detections, classes } = toDraw(answers);
      drawn.push([target, await annotate(image, detections, classes)]);
    }
    const annotated = target === undefined ? {} : { annotated: target };
    results.push({ path, ...annotated, routes: Object.fromEntries(answers) });
    bar(results.length, pictures.size);
  }
  for (const text of remarks) process.stderr.write(`polyhead: ${text}\n`);
  for (const [path, png] of drawn) await writeFileAtomic(path, png);
  return { data: { images: results }, text: results.flatMap(describe) };
}

/** Where each picture goes; undefined when none is wanted. */
function picturePaths(
  images: readonly string[],
  folder: string | undefined,
): ReadonlyMap<string, string | undefined> {
  const paths = new Map<string, string | undefined>();
  for (const image of images) {
    const target = folder === undefined ? undefined : join(folder, `${basename(image, extname(image))}.png`);
    if (target !== undefined && !paths.has(image) && [...paths.values()].includes(target)) {
      throw wrong(`Two images would be written as ${target}; annotate them one by one.`);
    }
    paths.set(image, target);
  }
  return paths;
}

/** All results in one picture; labels say their route where there are several. */
function toDraw(answers: ReadonlyMap<string, ImageAnswer>) {
  const named = <Each extends { readonly label: string }>(route: string, list: readonly Each[]) =>
    answers.size === 1 ? list : list.map((each) => ({ ...each, label: `${route}: ${each.label}` }));
  return {
    detections: [...answers].flatMap(([route, answer]) =>
      "detections" in answer ? named(route, answer.detections) : [],
    ),
    classes: [...answers].flatMap(([route, answer]) =>
      "classes" in answer ? named(route, answer.classes) : [],
    ),
  };
}

function describe({
  path,
  annotated,
  routes,
}: {
  readonly path: string;
  readonly annotated?: string;
  readonly routes: Readonly<Record<string, ImageAnswer>>;
}): string[] {
  const lines = Object.entries(routes).flatMap(([route, answer]) => [`  ${route}`, ...answerLines(answer)]);
  return [annotated === undefined ? path : `${path} (drawn in ${annotated})`, ...lines];
}

function answerLines(answer: ImageAnswer): string[] {
  if ("outputs" in answer) {
    return answer.outputs.map(({ name, dtype, shape }) => `    ${name}: ${dtype} ${formatShape(shape)}`);
  }
  const percent = (score: number) => `${(100 * score).toFixed(1)}%`;
  if ("classes" in answer) return answer.classes.map(({ label, score }) => `    ${label} ${percent(score)}`);
  if (answer.detections.length === 0) return ["    nothing found"];
  return answer.detections.map(({ label, score, box }) => {
    const [x1, y1, x2, y2] = [box.x1, box.y1, box.x2, box.y2].map(Math.round);
    return `    ${label} ${percent(score)} from (${x1}, ${y1}) to (${x2}, ${y2})`;
  });
}

function parseBinding(
  text: string,
  earlier: Readonly<Record<string, string>> = {},
): Readonly<Record<string, string>> {
  const at = text.indexOf("=");
  if (at < 1 || at === text.length - 1) throw new InvalidArgumentError("Expected input=tap.");
  return { ...earlier, [text.slice(0, at)]: text.slice(at + 1) };
}

function wrong(message: string): PolyheadError {
  return new PolyheadError("INVALID_ARGUMENT", message, {});
}
