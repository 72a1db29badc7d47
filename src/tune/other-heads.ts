/**
 * What full training does to the heads that read the old backbone: their answers on the new one, compared with their
 * answers on the old one, on images of their own.
 */
import { type Agreement, agreementOf, answersOf } from "../adapt/agreement.js";
import { picturesIn } from "../adapt/examples.js";
import { PolyheadError } from "../base/errors.js";
import { mapInFlight } from "../base/in-flight.js";
import { orProblem, readImageFile } from "../data/image-file.js";
import { stacked } from "../data/rows.js";
import { extract } from "../onnx/extract.js";
import { GraphIndex } from "../onnx/graph.js";
import { type Identity, identify } from "../onnx/identity.js";
import { readMetadata } from "../onnx/metadata.js";
import type { Model } from "../onnx/model.js";
import type { OpenedModel, OpenModel } from "../onnx/runner.js";
import { inferTypes } from "../onnx/shapes.js";
import type { Tensor } from "../tensor/tensor.js";
import { decodeImage, imageTensor } from "../vision/image.js";
import type { Preprocessing } from "../vision/preprocessing.js";

/** A head that lives on the old backbone, and images to try it on. */
export interface OtherHead {
  readonly name: string;
  readonly head: Model;
  /** Folder of images; folders named like the head's labels give its accuracy. */
  readonly data: string;
}

/** What becomes of it when it reads the new backbone. */
export interface OtherHeadLoss extends Agreement {
  readonly name: string;
  readonly images: number;
}

/** Both backbones. */
export interface Backbones {
  readonly before: Model;
  readonly after: Model;
  readonly preprocessing: Preprocessing;
  readonly open: OpenModel;
}

/**
 * Measures a head on the old and the new backbone.
 * @throws PolyheadError HEAD_MISMATCH when it does not read the old backbone; DATA_MALFORMED when no image can be read
 */
export async function lossOfOther(
  { name, head, data }: OtherHead,
  { before, after, preprocessing, open }: Backbones,
): Promise<OtherHeadLoss> {
  const metadata = readMetadata(head);
  const identities = await identify(before);
  const values = (metadata.taps ?? []).map(({ name: tap, identity }) =>
    valueRead(name, tap, identity, identities),
  );
  const inputs = new GraphIndex(head.graph).inputs.map(({ name: input }) => input);
  const { paths, truth } = await picturesIn(data, metadata.labels);
  const sessions: OpenedModel[] = [];
  try {
    for (const model of [partTo(before, values), partTo(after, values), head])
      sessions.push(await open(model, "all"));
    const [old, renewed, session] = sessions;
    if (!old || !renewed || !session) throw new PolyheadError("INTERNAL", "Sessions are missing.", {});
    const [input = ""] = new GraphIndex(before.graph).inputs.map((info) => info.name);
    const answer = async (backbone: OpenedModel, image: Tensor) => {
      const features = await backbone.run(new Map([[input, image]]));
      const given = inputs.flatMap((each, at) => {
        const value = features.get(values[at] ?? "");
        return value ? [[each, value] as const] : [];
      });
      return session.run(new Map(given));
    };
    const rows = await mapInFlight(paths, 2, (path) =>
      orProblem(async () => {
        const { bytes } = await readImageFile(path);
        const { tensor } = await imageTensor(await decodeImage(bytes), preprocessing);
        return { before: await answer(old, tensor), after: await answer(renewed, tensor) };
      }),
    );
    const good = rows.flatMap((row, at) => (typeof row === "string" ? [] : [{ ...row, at }]));
    if (good.length === 0) {
      throw new PolyheadError("DATA_MALFORMED", `No image of ${JSON.stringify(data)} can be read.`, {
        path: data,
      });
    }
    const [native, now] = (["before", "after"] as const).map((when) =>
      answersOf(gathered(good.map((row) => row[when])), metadata),
    );
    if (!native || !now) throw new PolyheadError("INTERNAL", "Answers are missing.", {});
    const known = truth && good.map(({ at }) => truth[at] ?? -1);
    return { name, images: good.length, ...agreementOf(native, now, known) };
  } finally {
    for (const session of sessions) await session.close();
  }
}

function valueRead(
  head: string,
  tap: string,
  wanted: Identity,
  identities: ReadonlyMap<string, Identity>,
): string {
  if (identities.get(tap) === wanted) return tap;
  const found = [...identities].find(([, identity]) => identity === wanted)?.[0];
  if (found !== undefined) return found;
  throw new PolyheadError(
    "HEAD_MISMATCH",
    `The head ${head} reads ${JSON.stringify(tap)} of identity ${wanted}, which the backbone does not make; give a head of this backbone.`,
    { head, tap },
  );
}

function partTo(model: Model, values: readonly string[]): Model {
  const index = new GraphIndex(model.graph);
  return extract(
    model,
    index,
    index.inputs.map(({ name }) => name),
    [...new Set(values)],
    inferTypes(model),
  );
}

function gathered(rows: readonly ReadonlyMap<string, Tensor>[]): Map<string, Tensor> {
  const names = [...(rows[0]?.keys() ?? [])];
  return new Map(names.map((name) => [name, stacked(rows.flatMap((row) => row.get(name) ?? []))]));
}
