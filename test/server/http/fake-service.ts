/**
 * A service in memory with models whose answers anybody can compute: `double` and `negate` of `x`, `echo` of one
 * input for each datatype, and `gate`, which answers when it is told to or aborted. It remembers what it was asked.
 */
import { createHash } from "node:crypto";
import { PolyheadError } from "../../../src/base/errors.js";
import type {
  Author,
  HistoryEntry,
  ImageRequest,
  ImageResult,
  InferenceRequest,
  InferenceResult,
  ModelStatistics,
  RepositoryEntry,
  RouteStatus,
  RouteTarget,
  ServedModel,
  Service,
  TensorSpec,
} from "../../../src/server/service.js";
import type { DType } from "../../../src/tensor/dtype.js";
import { type Tensor, tensor } from "../../../src/tensor/tensor.js";

const ECHOED: readonly DType[] = [
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
const NONE = { count: 0, ns: 0 };
const X: TensorSpec = { name: "x", dtype: "float32", shape: ["batch", 2] };
const TASKS = ["double", "negate", "echo", "gate"];

export class FakeService implements Service {
  readonly name = "fake";
  readonly version = "1.2.3";
  ready = true;
  /** Why requests are turned away at the door, if they are. */
  refusal: PolyheadError | undefined;
  /** Thrown by the next requests when set. */
  failure: unknown;
  generation = 1;
  readonly requests: (InferenceRequest | ImageRequest)[] = [];
  readonly changes: {
    readonly what: string;
    readonly name?: string;
    readonly author: Author;
    readonly data?: unknown;
  }[] = [];
  readonly targets = new Map<string, RouteTarget>(
    TASKS.map((name) => [name, { revisions: [{ revision: `${name}-1`, weight: 1 }], shadows: [] }]),
  );
  readonly waiting = new Set<() => void>();
  aborted = 0;

  isLive(): boolean {
    return true;
  }

  isReady(): boolean {
    return this.ready;
  }

  admit(): void {
    if (this.refusal) throw this.refusal;
  }

  models(): readonly ServedModel[] {
    return [...this.targets.keys()].map((name) => this.model(name));
  }

  model(name: string, version?: string): ServedModel {
    const target = this.targets.get(name);
    if (!target || (version !== undefined && version !== `${name}-1`)) {
      throw new PolyheadError("NOT_FOUND", `No model ${JSON.stringify(name)}.`, { name });
    }
    const specs = ECHOED.map((dtype): TensorSpec => ({ name: dtype, dtype, shape: ["count"] }));
    const y: TensorSpec = { ...X, name: "y" };
    const outputs = name === "double" ? [y, { name: "count", dtype: "int64" as const, shape: [1] }] : [y];
    return {
      name,
      versions: target.revisions.map(({ revision }) => revision),
      inputs: name === "echo" ? specs : [X],
      outputs: name === "echo" ? specs : outputs,
      metadata: {},
    };
  }

  async infer(request: InferenceRequest): Promise<InferenceResult> {
    this.requests.push(request);
    if (this.failure) throw this.failure;
    const routes: Record<string, { revision: string; outputs: Record<string, Tensor> }> = {};
    for (const route of request.routes) {
      this.model(route, route === request.routes[0] ? request.version : undefined);
      if (route === "gate") await this.#wait(request.signal);
      const outputs = route === "echo" ? { ...request.inputs } : compute(route, request.inputs.x);
      routes[route] = { revision: `${route}-1`, outputs };
    }
    return { generation: this.generation, cached: request.cache ?? true, routes };
  }

  async inferImage(request: ImageRequest): Promise<ImageResult> {
    this.requests.push(request);
    if (this.failure) throw this.failure;
    const sum = request.image.reduce((total, byte) => total + byte, 0);
    const routes: Record<string, ImageResult["routes"][string]> = {};
    for (const route of request.routes) {
      const revision = `${route}-1`;
      if (route === "double") {
        const classes = [0, 1, 2].map((classIndex) => ({
          label: `sum ${sum}`,
          classIndex,
          score: 1 - classIndex / 10,
        }));
        routes[route] = { revision, classes: classes.slice(0, request.top) };
      } else if (route === "negate") {
        const box = { x1: 1, y1: 2, x2: 3.5, y2: request.image.length };
        routes[route] = { revision, detections: [{ label: "bytes", classIndex: 7, score: 0.5, box }] };
      } else {
        const length = tensor("int64", [1], BigInt64Array.of(BigInt(request.image.length)));
        routes[route] = { revision, outputs: { length } };
      }
    }
    return { generation: this.generation, cached: false, image: { width: 4, height: 5 }, routes };
  }

  statistics(name?: string, version?: string): readonly ModelStatistics[] {
    const names = name === undefined ? [...this.targets.keys()] : [this.model(name, version).name];
    return names.map((each) => ({
      name: each,
      version: `${each}-1`,
      lastInference: 1_700_000_000_000,
      inferenceCount: this.requests.length,
      executionCount: 1,
      success: { count: 3, ns: 300 },
      fail: NONE,
      queue: NONE,
      computeInput: NONE,
      computeInfer: { count: 1, ns: 17 },
      computeOutput: NONE,
      cacheHit: NONE,
      cacheMiss: NONE,
      batches: [{ size: 8, infer: { count: 1, ns: 17 } }],
    }));
  }

  async repositoryIndex(readyOnly: boolean): Promise<readonly RepositoryEntry[]> {
    const ready = [...this.targets.keys()].map(
      (name): RepositoryEntry => ({ name, version: `${name}-1`, state: "READY", reason: "" }),
    );
    const kept: RepositoryEntry = {
      name: "kept",
      version: "kept-1",
      state: "UNAVAILABLE",
      reason: "unloaded",
    };
    return readyOnly ? ready : [...ready, kept];
  }

  async repositoryLoad(name: string, file: Uint8Array | undefined, author: Author): Promise<void> {
    if (this.failure) throw this.failure;
    if (!file && name !== "kept" && !this.targets.has(name))
      throw new PolyheadError("NOT_FOUND", "Not in the store.", {});
    this.changes.push({ what: "load", name, author, data: file && [...file] });
    this.targets.set(name, { revisions: [{ revision: `${name}-1`, weight: 1 }], shadows: [] });
  }

  async repositoryUnload(name: string, author: Author): Promise<void> {
    this.model(name);
    this.changes.push({ what: "unload", name, author });
    this.targets.delete(name);
  }

  routes(): readonly RouteStatus[] {
    return [...this.targets.keys()].map((name) => this.route(name));
  }

  route(name: string): RouteStatus {
    const target = this.targets.get(this.model(name).name);
    const comparisons = (target?.shadows ?? []).map((revision) => ({
      revision,
      rows: 9,
      agreement: 1,
      cost: 0.25,
      failed: 0,
    }));
    const { revisions = [], shadows = [], limits } = target ?? {};
    return {
      name,
      revisions,
      shadows,
      limits,
      task: "arithmetic",
      labels: undefined,
      requests: 5,
      failed: 0,
      comparisons,
    };
  }

  history(name?: string): readonly HistoryEntry[] {
    if (name !== undefined) this.model(name);
    return this.changes.toReversed().map(({ author, data }) => ({
      at: "2026-01-02T03:04:05.000Z",
      by: author.by,
      action: "switch",
      generation: this.generation,
      before: undefined,
      after: data as RouteTarget,
      reason: author.reason ?? "",
    }));
  }

  async modelFile(revision: string): Promise<Uint8Array> {
    return new TextEncoder().encode(revision);
  }

  async addModel(file: Uint8Array, route: string | undefined, author: Author): Promise<string> {
    const revision = createHash("sha256").update(file).digest("hex");
    this.changes.push({ what: "add", author, ...(route !== undefined && { name: route }) });
    if (route !== undefined) this.targets.set(route, { revisions: [{ revision, weight: 1 }], shadows: [] });
    return revision;
  }

  async addKept(revision: string, route: string, author: Author): Promise<string> {
    this.changes.push({ what: "add", author, name: route });
    this.targets.set(route, { revisions: [{ revision, weight: 1 }], shadows: [] });
    return revision;
  }

  async setTargets(changes: Readonly<Record<string, RouteTarget>>, author: Author): Promise<number> {
    for (const name of Object.keys(changes)) this.model(name);
    for (const [name, target] of Object.entries(changes)) {
      this.targets.set(name, target);
      this.changes.push({ what: "switch", name, author, data: target });
    }
    return ++this.generation;
  }

  async promote(route: string, author: Author): Promise<number> {
    this.model(route);
    this.changes.push({ what: "promote", name: route, author });
    return ++this.generation;
  }

  async rollback(route: string, author: Author): Promise<number> {
    this.model(route);
    this.changes.push({ what: "rollback", name: route, author });
    return ++this.generation;
  }

  async removeRoute(route: string, author: Author): Promise<void> {
    this.model(route);
    this.changes.push({ what: "remove", name: route, author });
    this.targets.delete(route);
  }

  metrics(): string {
    return `# TYPE polyhead_requests_total counter\npolyhead_requests_total ${this.requests.length}\n`;
  }

  /** Lets all requests to `gate` go on. */
  open(): void {
    for (const release of this.waiting) release();
    this.waiting.clear();
  }

  #wait(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      this.waiting.add(resolve);
      signal?.addEventListener("abort", () => {
        this.waiting.delete(resolve);
        this.aborted++;
        reject(signal.reason);
      });
    });
  }
}

function compute(route: string, x: Tensor | undefined): Record<string, Tensor> {
  if (x?.dtype !== "float32") {
    throw new PolyheadError(
      "INPUT_MISMATCH",
      `The input "x" is ${x?.dtype ?? "missing"}; expected float32.`,
      {},
    );
  }
  const factor = route === "negate" ? -1 : 2;
  const y = tensor(
    "float32",
    x.shape,
    Float32Array.from(x.data as Float32Array, (value) => value * factor),
  );
  if (route !== "double") return { y };
  return { y, count: tensor("int64", [1], BigInt64Array.of(BigInt(x.data.length))) };
}
