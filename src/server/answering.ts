/** Requests through the engine: checked against what is served, answered, counted, compared with their shadows. */
import { createHash } from "node:crypto";
import { availableParallelism } from "node:os";
import { asPolyheadError, type PolyheadError } from "../base/errors.js";
import type { Answer, Engine, LoadedModel, RunOptions } from "../engine/index.js";
import type { Tensor } from "../tensor/tensor.js";
import { decodeImage, imageTensor } from "../vision/image.js";
import { agreementMeasure, type Comparisons } from "./comparisons.js";
import { commonPreprocessing, interpret } from "./images.js";
import type { ImageRequest, ImageResult, InferenceRequest, InferenceResult, ServedModel } from "./service.js";
import { spansOf } from "./spans.js";
import type { Statistics } from "./statistics.js";
import type { Observation } from "./trials.js";
import { Turnstile } from "./turnstile.js";

/** What answering needs of a deployment. */
export interface AnsweringParts {
  readonly engine: Engine;
  readonly statistics: Statistics;
  readonly comparisons: Comparisons;
  /** That an image may have. */
  readonly imagePixels: number;
  /** @throws PolyheadError NOT_FOUND */
  readonly model: (name: string, version?: string) => ServedModel;
  /** Told of each answer and failure of a route. */
  readonly observed: (route: string, revision: string, observation: Observation) => void;
}

/** Answers requests. */
export class Answering {
  readonly #parts: AnsweringParts;
  /** Decoded pixels take far more memory than the images that come. */
  readonly #decoding = new Turnstile(availableParallelism(), DECODING_LINE);

  constructor(parts: AnsweringParts) {
    this.#parts = parts;
  }

  /** See `Service.admit`. */
  admit(): void {
    this.#parts.engine.admit();
    this.#decoding.admit();
  }

  /** See `Service.infer`. */
  async infer(request: InferenceRequest): Promise<InferenceResult> {
    const answer = await this.#run(request, request.inputs, request);
    return {
      generation: answer.generation,
      cached: answer.cached,
      routes: Object.fromEntries(
        Object.entries(answer.routes).map(([name, { revision, outputs }]) => [name, { revision, outputs }]),
      ),
    };
  }

  /** See `Service.inferImage`. */
  async inferImage(request: ImageRequest): Promise<ImageResult> {
    const loaded = new Map(this.#parts.engine.models.map((each) => [each.revision, each]));
    const sources = new Map(request.routes.map((name) => [name, this.#metadataOf(name, loaded)]));
    const preprocessing = commonPreprocessing(sources);
    const { image, tensor, placement } = await this.#decoding.pass(async () => {
      const { width, height, rgb } = await decodeImage(request.image, { maxPixels: this.#parts.imagePixels });
      const input = await imageTensor({ width, height, rgb }, preprocessing);
      return { image: { width, height }, ...input };
    }, request.signal);
    const digest = createHash("sha256")
      .update(request.image)
      .update(JSON.stringify(preprocessing))
      .digest("hex");
    const answer = await this.#run(request, tensor, { digest, owned: true });
    const routes = Object.entries(answer.routes).map(([name, { revision, outputs }]) => {
      const metadata = loaded.get(revision)?.metadata ?? this.#parts.model(name).metadata;
      return [name, { revision, ...interpret(outputs, metadata, placement, request) }] as const;
    });
    return {
      generation: answer.generation,
      cached: answer.cached,
      image,
      routes: Object.fromEntries(routes),
    };
  }

  #metadataOf(name: string, loaded: ReadonlyMap<string, LoadedModel>) {
    const [revision = ""] = this.#parts.model(name).versions;
    const model = loaded.get(revision);
    return [revision, ...(model?.through ?? [])].flatMap((each) => loaded.get(each)?.metadata ?? []);
  }

  async #run(
    request: Omit<InferenceRequest, "inputs" | "digest" | "owned">,
    inputs: Tensor | Readonly<Record<string, Tensor>>,
    { digest, owned = false }: Pick<InferenceRequest, "digest" | "owned">,
  ): Promise<Answer> {
    const { engine, statistics, comparisons, model, observed } = this.#parts;
    const { routes, version, key, cache, timeout, signal } = request;
    const [first = ""] = routes;
    for (const name of routes) model(name, name === first ? version : undefined);
    const options: RunOptions = {
      owned,
      ...(version !== undefined && { revisions: { [first]: version } }),
      ...(key !== undefined && { key }),
      ...(cache !== undefined && { cache }),
      ...(timeout !== undefined && { timeout }),
      ...(signal && { signal }),
      ...(digest !== undefined && { digest }),
    };
    const start = performance.now();
    try {
      const answer = await engine.run(routes, inputs, options);
      const taken = performance.now() - start;
      const rows = rowsIn(inputs);
      spansOf(answer);
      for (const name of routes) {
        statistics.answered(name, rows, taken, answer);
        const agreement = comparisons.add(name, answer, rows, agreementMeasure(model(name).metadata));
        const revision = answer.routes[name]?.revision ?? "";
        observed(name, revision, { milliseconds: taken, failed: false, ...agreement });
      }
      return answer;
    } catch (thrown) {
      const error = asPolyheadError(thrown, "INTERNAL", "The request failed");
      if (CALLERS_FAULT.has(error.code)) {
        for (const name of routes) statistics.refused(name, error.code);
        throw error;
      }
      const { route, revision } = error.details;
      const name = typeof route === "string" ? route : first;
      const failing = typeof revision === "string" ? revision : (engine.routes.get(name) ?? "");
      const milliseconds = performance.now() - start;
      statistics.failed(name, failing, milliseconds);
      observed(name, failing, { milliseconds, failed: true, compared: 0, agreed: 0 });
      throw error;
    }
  }
}

/** Images that may wait to be decoded. */
const DECODING_LINE = 256;

/** Failures that say nothing of a revision. */
const CALLERS_FAULT: ReadonlySet<PolyheadError["code"]> = new Set([
  "INPUT_MISMATCH",
  "NOT_FOUND",
  "ABORTED",
  "DEADLINE_EXCEEDED",
  "OVERLOADED",
  "CLOSED",
]);

function rowsIn(inputs: Tensor | Readonly<Record<string, Tensor>>): number {
  const tensors = "dtype" in inputs && "data" in inputs ? [inputs as Tensor] : Object.values(inputs);
  return (tensors as Tensor[])[0]?.shape[0] ?? 1;
}
