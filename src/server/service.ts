/**
 * What the protocols talk to: one contract between HTTP and gRPC on one side, engine and store on the other.
 * A protocol turns its requests into these and these answers into its own; it decides nothing. All names are the
 * Open Inference Protocol's where it has one: every route is a model whose versions are its revisions, and every
 * backbone is a model whose outputs are its taps.
 */
import type { Metadata } from "../onnx/metadata.js";
import type { DType } from "../tensor/dtype.js";
import type { SymbolicShape } from "../tensor/shape.js";
import type { Tensor } from "../tensor/tensor.js";
import type { Classification } from "../vision/classification.js";
import type { Detection } from "../vision/detections.js";

/** Name, dtype and shape of an input or output; a dimension with a name is open. */
export interface TensorSpec {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: SymbolicShape;
}

/** A route or a backbone as clients see it. */
export interface ServedModel {
  readonly name: string;
  /** Revisions that can be asked for, the one that answers by default first. */
  readonly versions: readonly string[];
  readonly inputs: readonly TensorSpec[];
  readonly outputs: readonly TensorSpec[];
  readonly metadata: Metadata;
}

/** A request for answers from one or several routes. */
export interface InferenceRequest {
  /** The model of the path, and with it any others that shall answer from the same features. */
  readonly routes: readonly string[];
  /** A revision of the first route, where the caller asks for one rather than for what is live. */
  readonly version?: string | undefined;
  /** By the names that the models give their inputs. */
  readonly inputs: Readonly<Record<string, Tensor>>;
  /** Callers of one key get one revision of a canary. */
  readonly key?: string | undefined;
  /** Names the content of the inputs; equal digests must mean equal inputs. */
  readonly digest?: string | undefined;
  /** Whether nobody reads the memory of the inputs any more, so that it need not be copied. */
  readonly owned?: boolean | undefined;
  /** Whether features may come from the cache; true by default. */
  readonly cache?: boolean | undefined;
  /** Milliseconds from now after which the answer is of no use. */
  readonly timeout?: number | undefined;
  /** Aborted when the client has gone. */
  readonly signal?: AbortSignal | undefined;
}

/** What one route answers. */
export interface RouteResult {
  readonly revision: string;
  readonly outputs: Readonly<Record<string, Tensor>>;
}

/** What a request is answered. */
export interface InferenceResult {
  /** Number of the generation that made all of it. */
  readonly generation: number;
  /** Whether features came from the cache. */
  readonly cached: boolean;
  /** In the order of the request. */
  readonly routes: Readonly<Record<string, RouteResult>>;
}

/** A request about an encoded image: JPEG, PNG or WebP. */
export interface ImageRequest extends Omit<InferenceRequest, "inputs" | "digest" | "owned"> {
  readonly image: Uint8Array;
  /** Boxes and classes below this score are left out. */
  readonly threshold?: number | undefined;
  /** At most so many classes. */
  readonly top?: number | undefined;
}

/** What a route says about an image. */
export interface ImageRouteResult {
  readonly revision: string;
  readonly classes?: readonly Classification[];
  readonly detections?: readonly Detection[];
  /** Outputs of a head that says nothing of how to read them. */
  readonly outputs?: Readonly<Record<string, Tensor>>;
}

/** What an image is answered. */
export interface ImageResult extends Omit<InferenceResult, "routes"> {
  readonly image: { readonly width: number; readonly height: number };
  readonly routes: Readonly<Record<string, ImageRouteResult>>;
}

/** How often something happened, and nanoseconds in all. */
export interface DurationStatistic {
  readonly count: number;
  readonly ns: number;
}

/** The statistics extension's account of one revision of one model. */
export interface ModelStatistics {
  readonly name: string;
  readonly version: string;
  /** Milliseconds since the epoch; 0 for never. */
  readonly lastInference: number;
  /** Rows that were answered. */
  readonly inferenceCount: number;
  /** Runs, each of one row or a batch. */
  readonly executionCount: number;
  readonly success: DurationStatistic;
  readonly fail: DurationStatistic;
  readonly queue: DurationStatistic;
  /** Checking, stacking and copying of inputs; the run; taking the answer apart. */
  readonly computeInput: DurationStatistic;
  readonly computeInfer: DurationStatistic;
  readonly computeOutput: DurationStatistic;
  readonly cacheHit: DurationStatistic;
  readonly cacheMiss: DurationStatistic;
  readonly batches: readonly { readonly size: number; readonly infer: DurationStatistic }[];
}

/** An entry of the repository index: a route, live or only kept in the store. */
export interface RepositoryEntry {
  readonly name: string;
  readonly version: string;
  readonly state: "READY" | "UNAVAILABLE";
  readonly reason: string;
}

/** Where a route points. */
export interface RouteTarget {
  /** Revisions that answer, with their shares of the requests; one of weight 1 for a plain route. */
  readonly revisions: readonly { readonly revision: string; readonly weight: number }[];
  /** Revisions that run on the same features and are compared, and never answer. */
  readonly shadows: readonly string[];
  /** What makes a canary roll back by itself. */
  readonly limits?: CanaryLimits | undefined;
}

/** Bounds for a canary, judged once it has answered `requests` times. */
export interface CanaryLimits {
  readonly requests: number;
  /** Share of failed requests, from 0 to 1. */
  readonly errorRate?: number | undefined;
  /** Milliseconds at the 99th percentile. */
  readonly latency?: number | undefined;
  /**
   * Least mean agreement of rows with the main revision's, which then runs beside the canary on everything that the
   * canary answers. For heads that classify and for embeddings.
   */
  readonly agreement?: number | undefined;
}

/** A change of routes, as history keeps it. */
export interface HistoryEntry {
  /** ISO 8601. */
  readonly at: string;
  /** Who asked: a token's name, or a name that the caller gave. */
  readonly by: string;
  readonly action: "add" | "switch" | "promote" | "rollback" | "remove" | "shadow" | "canary";
  readonly generation: number;
  readonly before: RouteTarget | undefined;
  readonly after: RouteTarget | undefined;
  readonly reason: string;
}

/** How well a shadow or a canary follows the revision that answers. */
export interface Comparison {
  readonly revision: string;
  readonly rows: number;
  /** Of classifiers the share of rows with the same first class, of embeddings the mean cosine; absent for others. */
  readonly agreement?: number;
  /** Mean and largest absolute difference of outputs that have the same name and shape. */
  readonly meanDifference?: number;
  readonly maxDifference?: number;
  /** Milliseconds for a row, in the mean. */
  readonly cost: number;
  readonly failed: number;
}

/** A route with all that is known of it. */
export interface RouteStatus extends RouteTarget {
  readonly name: string;
  readonly task: string | undefined;
  readonly labels: number | undefined;
  /** How good the head is, as it was measured when it was made or adapted; what was measured, and how, is in it. */
  readonly quality?: Readonly<Record<string, unknown>> | undefined;
  readonly requests: number;
  readonly failed: number;
  readonly comparisons: readonly Comparison[];
}

/** Who changes routes, for history. */
export interface Author {
  readonly by: string;
  readonly reason?: string | undefined;
}

/** Everything that a protocol can ask for. Failures are PolyheadErrors of the catalogue. */
export interface Service {
  readonly name: string;
  readonly version: string;
  /** The process works. */
  isLive(): boolean;
  /** Requests are welcome: routes are loaded and nothing is shutting down. */
  isReady(): boolean;
  /**
   * Whether a request for an answer would be let in now; asked before its body is read.
   * @throws PolyheadError OVERLOADED, CLOSED
   */
  admit(): void;
  /** Routes and backbones. */
  models(): readonly ServedModel[];
  /**
   * One of them; with `version` as that revision declares itself.
   * @throws PolyheadError NOT_FOUND
   */
  model(name: string, version?: string): ServedModel;
  /** @throws PolyheadError NOT_FOUND, INPUT_MISMATCH, OVERLOADED, DEADLINE_EXCEEDED, ABORTED, RUN_FAILED, WORKER_LOST, CLOSED */
  infer(request: InferenceRequest): Promise<InferenceResult>;
  /** @throws PolyheadError what {@link infer} throws, DATA_MALFORMED and LIMIT_EXCEEDED for the image */
  inferImage(request: ImageRequest): Promise<ImageResult>;
  /** @throws PolyheadError NOT_FOUND */
  statistics(name?: string, version?: string): readonly ModelStatistics[];

  /** All models that the store has, loaded or not. */
  repositoryIndex(readyOnly: boolean): Promise<readonly RepositoryEntry[]>;
  /**
   * Puts a model of the store, or the given file, behind its route (again).
   * @param file an ONNX file that the caller sent
   * @throws PolyheadError NOT_FOUND, and what loading throws
   */
  repositoryLoad(name: string, file: Uint8Array | undefined, author: Author): Promise<void>;
  /** Takes a model away from requests; the store keeps it. @throws PolyheadError NOT_FOUND */
  repositoryUnload(name: string, author: Author): Promise<void>;

  /** All routes. */
  routes(): readonly RouteStatus[];
  /** @throws PolyheadError NOT_FOUND */
  route(name: string): RouteStatus;
  /** Earlier changes, the newest first; of one route or of all. @throws PolyheadError NOT_FOUND */
  history(name?: string): readonly HistoryEntry[];
  /**
   * Loads a head (or backbone) and proves it; gives it a new route, or keeps it ready as a revision of an existing
   * one.
   * @param title name of its file, by which a backbone without a route is known; made up when it is not given
   * @returns its revision
   * @throws PolyheadError what loading throws
   */
  addModel(file: Uint8Array, route: string | undefined, author: Author, title?: string): Promise<string>;
  /**
   * Does what {@link addModel} does with a model that the store has.
   * @returns its revision
   * @throws PolyheadError NOT_FOUND, and what loading throws
   */
  addKept(revision: string, route: string, author: Author): Promise<string>;
  /** The ONNX file of a revision that the store has. @throws PolyheadError NOT_FOUND */
  modelFile(revision: string): Promise<Uint8Array>;
  /**
   * Points several routes elsewhere at once: a request sees all of it or nothing.
   * @returns the generation from which on it holds
   * @throws PolyheadError NOT_FOUND
   */
  setTargets(changes: Readonly<Record<string, RouteTarget>>, author: Author): Promise<number>;
  /** Gives a canary all requests of its route. @throws PolyheadError NOT_FOUND, INVALID_ARGUMENT without a canary */
  promote(route: string, author: Author): Promise<number>;
  /** Back to what the route was before its last change. @throws PolyheadError NOT_FOUND */
  rollback(route: string, author: Author): Promise<number>;
  /** Takes a route away. @throws PolyheadError NOT_FOUND */
  removeRoute(route: string, author: Author): Promise<void>;
  /** The metrics of now in Prometheus' text format. */
  metrics(): string;
}
