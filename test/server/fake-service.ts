/**
 * A service in memory, for tests of the protocols: some models whose answers can be told from their inputs, a
 * repository that loads and unloads, and a way to make the next inference fail or wait. Control of routes is the
 * least that types ask for.
 */
import { PolyheadError } from "../../src/base/errors.js";
import type {
  InferenceRequest,
  InferenceResult,
  ModelStatistics,
  RouteStatus,
  ServedModel,
  Service,
  TensorSpec,
} from "../../src/server/service.js";
import type { DType } from "../../src/tensor/dtype.js";
import { float32, type Tensor, toNumbers } from "../../src/tensor/tensor.js";

/** Dtypes that the protocols can carry. */
export const CARRIED: readonly DType[] = [
  "bool",
  "uint8",
  "uint16",
  "uint32",
  "uint64",
  "int8",
  "int16",
  "int32",
  "int64",
  "float16",
  "float32",
  "float64",
  "string",
  "bfloat16",
];

const image: TensorSpec = { name: "image", dtype: "float32", shape: ["batch", 3] };

/**
 * `food`: `scores` is the double of `image`, `names` says what its rows are; `coco`: `model/boxes` is `image`
 * plus one; `net`: a backbone whose tap `pool` is `image`; `echo`: any inputs `x_DTYPE` come back as `y_DTYPE`;
 * `large`: takes `x` of any length and answers its bytes as `y`.
 */
const MODELS: readonly ServedModel[] = [
  {
    name: "food",
    versions: ["sha256-food2", "sha256-food1"],
    inputs: [image],
    outputs: [
      { name: "scores", dtype: "float32", shape: ["batch", 3] },
      { name: "names", dtype: "string", shape: ["batch"] },
    ],
    metadata: { task: "classification" },
  },
  {
    name: "coco",
    versions: ["sha256-coco1"],
    inputs: [image],
    outputs: [{ name: "model/boxes", dtype: "float32", shape: ["batch", 3] }],
    metadata: { task: "detection" },
  },
  {
    name: "net",
    versions: ["sha256-net1"],
    inputs: [image],
    outputs: [{ name: "pool", dtype: "float32", shape: ["batch", 3] }],
    metadata: { role: "backbone" },
  },
  {
    name: "echo",
    versions: ["sha256-echo1"],
    inputs: CARRIED.map((dtype) => ({ name: `x_${dtype}`, dtype, shape: ["n"] })),
    outputs: CARRIED.map((dtype) => ({ name: `y_${dtype}`, dtype, shape: ["n"] })),
    metadata: {},
  },
  {
    name: "large",
    versions: ["sha256-large1"],
    inputs: [{ name: "x", dtype: "float32", shape: ["batch", "n"] }],
    outputs: [{ name: "y", dtype: "float32", shape: ["batch", "n"] }],
    metadata: {},
  },
];

/** What the tests may look at and change beside the contract. */
export class FakeService implements Service {
  readonly name = "polyhead";
  readonly version = "0.1.0";
  ready = true;
  /** Why requests are turned away at the door, if they are. */
  refusal: PolyheadError | undefined;
  generation = 7;
  /** Requests as they came. */
  readonly requests: InferenceRequest[] = [];
  /** Loads and unloads as they came. */
  readonly changes: { name: string; file?: Uint8Array | undefined; by: string }[] = [];
  /** Runs before an inference answers. */
  before: ((request: InferenceRequest) => Promise<void> | void) | undefined;
  readonly #unloaded = new Set<string>();

  isLive() {
    return true;
  }

  isReady() {
    return this.ready;
  }

  admit(): void {
    if (this.refusal) throw this.refusal;
  }

  models() {
    return MODELS.filter(({ name }) => !this.#unloaded.has(name));
  }

  model(name: string, version?: string) {
    const found = this.models().find((model) => model.name === name);
    if (!found || (version !== undefined && !found.versions.includes(version)))
      throw missing(version === undefined ? name : `${name}@${version}`);
    return found;
  }

  async infer(request: InferenceRequest): Promise<InferenceResult> {
    this.requests.push(request);
    await this.before?.(request);
    const routes = request.routes.map((name, index) => {
      const { versions, inputs } = this.model(name, index === 0 ? request.version : undefined);
      for (const given of Object.keys(request.inputs)) {
        if (!inputs.some((input) => input.name === given))
          throw new PolyheadError("INPUT_MISMATCH", `The model ${name} has no input ${given}.`, {});
      }
      const revision = (index === 0 ? request.version : undefined) ?? versions[0] ?? "";
      return [name, { revision, outputs: answer(name, request.inputs) }] as const;
    });
    return {
      generation: this.generation,
      cached: request.cache !== false && request.key === "seen",
      routes: Object.fromEntries(routes),
    };
  }

  async inferImage(): Promise<never> {
    throw new PolyheadError("MODEL_UNSUPPORTED", "The fake does not take images.", {});
  }

  statistics(name?: string, version?: string): readonly ModelStatistics[] {
    const models = name === undefined ? this.models() : [this.model(name, version)];
    return models.map((model) => ({
      name: model.name,
      version: model.versions[0] ?? "",
      lastInference: 1_700_000_000_123,
      inferenceCount: 12,
      executionCount: 5,
      success: { count: 11, ns: 1100 },
      fail: { count: 1, ns: 100 },
      queue: { count: 12, ns: 120 },
      computeInput: { count: 5, ns: 50 },
      computeInfer: { count: 5, ns: 5_000_000_000 },
      computeOutput: { count: 5, ns: 51 },
      cacheHit: { count: 2, ns: 20 },
      cacheMiss: { count: 3, ns: 30 },
      batches: [{ size: 4, infer: { count: 3, ns: 3000 } }],
    }));
  }

  async repositoryIndex(readyOnly: boolean) {
    return MODELS.filter(({ name }) => !readyOnly || !this.#unloaded.has(name)).map(({ name, versions }) => ({
      name,
      version: versions[0] ?? "",
      state: this.#unloaded.has(name) ? ("UNAVAILABLE" as const) : ("READY" as const),
      reason: this.#unloaded.has(name) ? "unloaded" : "",
    }));
  }

  async repositoryLoad(name: string, file: Uint8Array | undefined, { by }: { by: string }) {
    if (!MODELS.some((model) => model.name === name)) throw missing(name);
    this.changes.push({ name, file, by });
    this.#unloaded.delete(name);
  }

  async repositoryUnload(name: string, { by }: { by: string }) {
    this.model(name);
    this.changes.push({ name, by });
    this.#unloaded.add(name);
  }

  routes(): readonly RouteStatus[] {
    return this.models().map(({ name }) => this.route(name));
  }

  route(name: string): RouteStatus {
    const { versions, metadata } = this.model(name);
    return {
      name,
      revisions: [{ revision: versions[0] ?? "", weight: 1 }],
      shadows: [],
      task: metadata.task,
      labels: undefined,
      requests: 12,
      failed: 1,
      comparisons: [],
    };
  }

  history() {
    return [];
  }

  async addModel(): Promise<string> {
    return "sha256-added";
  }

  async addKept(): Promise<string> {
    return "sha256-added";
  }

  async modelFile(): Promise<Uint8Array> {
    return new Uint8Array([1, 2, 3]);
  }

  async setTargets(): Promise<number> {
    return ++this.generation;
  }

  async promote(): Promise<number> {
    return ++this.generation;
  }

  async rollback(): Promise<number> {
    return ++this.generation;
  }

  async removeRoute(name: string) {
    this.model(name);
  }

  metrics() {
    return "# no metrics\n";
  }
}

function answer(name: string, inputs: Readonly<Record<string, Tensor>>): Record<string, Tensor> {
  if (name === "echo") {
    return Object.fromEntries(Object.entries(inputs).map(([key, value]) => [key.replace("x_", "y_"), value]));
  }
  if (name === "large") return inputs.x ? { y: inputs.x } : {};
  const given = inputs.image;
  if (!given) throw new PolyheadError("INPUT_MISMATCH", `The model ${name} needs the input image.`, {});
  const numbers = toNumbers(given);
  if (name === "food") {
    const rows = Array.from({ length: given.shape[0] ?? 0 }, (_, row) => `row ${row} ä`);
    return {
      scores: float32(
        given.shape,
        numbers.map((value) => 2 * value),
      ),
      names: { dtype: "string", shape: [rows.length], data: rows },
    };
  }
  if (name === "net") return { pool: given };
  return {
    "model/boxes": float32(
      given.shape,
      numbers.map((value) => value + 1),
    ),
  };
}

function missing(name: string): PolyheadError {
  return new PolyheadError("NOT_FOUND", `There is no model ${JSON.stringify(name)}.`, { name });
}
