/**
 * The one catalogue of errors. Every failure that a caller can cause or must handle is a
 * {@link PolyheadError} with a stable `code`; the table gives each code the status it has over HTTP, over
 * gRPC and as the exit status of the command. A message says what failed, what came, what was expected and
 * how to mend it; the same facts stand in `details` for programs.
 */

/** How one kind of failure looks at each border of the system. */
export interface ErrorStatus {
  /** HTTP status code. */
  readonly http: number;
  /** gRPC status name. */
  readonly grpc: string;
  /** Exit status of the command (BSD sysexits where one fits). */
  readonly exit: number;
  /** One line for the documentation. */
  readonly meaning: string;
}

/** All codes with their statuses. */
export const ERROR_CATALOGUE = {
  INVALID_ARGUMENT: {
    http: 400,
    grpc: "INVALID_ARGUMENT",
    exit: 64,
    meaning: "an option or argument is wrong",
  },
  MODEL_MALFORMED: {
    http: 400,
    grpc: "INVALID_ARGUMENT",
    exit: 65,
    meaning: "a model file cannot be understood",
  },
  MODEL_UNSUPPORTED: {
    http: 422,
    grpc: "INVALID_ARGUMENT",
    exit: 65,
    meaning: "a model uses something that is not supported",
  },
  DATA_MALFORMED: {
    http: 400,
    grpc: "INVALID_ARGUMENT",
    exit: 65,
    meaning: "an array, image or label file cannot be understood",
  },
  LIMIT_EXCEEDED: {
    http: 413,
    grpc: "RESOURCE_EXHAUSTED",
    exit: 65,
    meaning: "an input is larger than the limit for its kind",
  },
  PATH_REFUSED: {
    http: 403,
    grpc: "PERMISSION_DENIED",
    exit: 65,
    meaning: "a file names a path outside of its own folder",
  },
  FILE_NOT_FOUND: {
    http: 404,
    grpc: "NOT_FOUND",
    exit: 66,
    meaning: "a file does not exist or cannot be read",
  },
  FILE_NOT_WRITTEN: { http: 500, grpc: "INTERNAL", exit: 73, meaning: "a file cannot be written" },
  CUT_INVALID: {
    http: 422,
    grpc: "FAILED_PRECONDITION",
    exit: 65,
    meaning: "the named values do not separate inputs from outputs",
  },
  PROOF_FAILED: {
    http: 422,
    grpc: "FAILED_PRECONDITION",
    exit: 70,
    meaning: "a result does not equal what it was made from, so it is not used",
  },
  QUALITY_TOO_LOW: {
    http: 422,
    grpc: "FAILED_PRECONDITION",
    exit: 70,
    meaning: "what was made keeps less of the head's quality than the floor, so it is not used",
  },
  HEAD_MISMATCH: {
    http: 409,
    grpc: "FAILED_PRECONDITION",
    exit: 65,
    meaning: "a head reads features that this backbone does not make",
  },
  NOT_FOUND: {
    http: 404,
    grpc: "NOT_FOUND",
    exit: 66,
    meaning: "no route, head, backbone or value has this name",
  },
  ALREADY_EXISTS: { http: 409, grpc: "ALREADY_EXISTS", exit: 65, meaning: "the name is taken" },
  IN_USE: {
    http: 409,
    grpc: "FAILED_PRECONDITION",
    exit: 65,
    meaning: "a model cannot be removed because a route or its history needs it",
  },
  STORE_REFUSED: {
    http: 500,
    grpc: "FAILED_PRECONDITION",
    exit: 65,
    meaning: "a folder is not a store, or cannot be used as one",
  },
  STORE_DAMAGED: {
    http: 500,
    grpc: "DATA_LOSS",
    exit: 65,
    meaning: "a file of the store is missing or is not what it should be",
  },
  STORE_LOCKED: {
    http: 503,
    grpc: "UNAVAILABLE",
    exit: 75,
    meaning: "another process changes the store and has not finished in time",
  },
  INPUT_MISMATCH: {
    http: 400,
    grpc: "INVALID_ARGUMENT",
    exit: 65,
    meaning: "an input's name, dtype or shape is not what the model takes",
  },
  RUN_FAILED: { http: 500, grpc: "INTERNAL", exit: 70, meaning: "the runtime failed while it computed" },
  DIVERGED: {
    http: 422,
    grpc: "FAILED_PRECONDITION",
    exit: 70,
    meaning: "a training's loss is no finite number any more",
  },
  LOAD_FAILED: { http: 422, grpc: "FAILED_PRECONDITION", exit: 65, meaning: "the runtime refused a model" },
  WORKER_LOST: {
    http: 503,
    grpc: "UNAVAILABLE",
    exit: 75,
    meaning: "a worker died; its requests fail and it is replaced",
  },
  OVERLOADED: { http: 503, grpc: "UNAVAILABLE", exit: 75, meaning: "the queue is full" },
  DEADLINE_EXCEEDED: {
    http: 504,
    grpc: "DEADLINE_EXCEEDED",
    exit: 75,
    meaning: "the time that the caller gave was over before the run began",
  },
  UNAUTHENTICATED: { http: 401, grpc: "UNAUTHENTICATED", exit: 77, meaning: "a token is missing or unknown" },
  FORBIDDEN: {
    http: 403,
    grpc: "PERMISSION_DENIED",
    exit: 77,
    meaning: "the token does not allow this",
  },
  CLOSED: { http: 503, grpc: "UNAVAILABLE", exit: 75, meaning: "the engine or session is closed" },
  ABORTED: { http: 499, grpc: "CANCELLED", exit: 75, meaning: "the caller gave up" },
  INTERNAL: { http: 500, grpc: "INTERNAL", exit: 70, meaning: "a fault of Polyhead itself" },
} as const satisfies Record<string, ErrorStatus>;

/** A stable name of a kind of failure. */
export type ErrorCode = keyof typeof ERROR_CATALOGUE;

/** A failure from the catalogue. */
export class PolyheadError extends Error {
  override readonly name = "PolyheadError";
  /** Which kind of failure. */
  readonly code: ErrorCode;
  /** What was expected and what came, for programs; JSON-serialisable. */
  readonly details: Readonly<Record<string, unknown>>;

  constructor(
    code: ErrorCode,
    message: string,
    details: Readonly<Record<string, unknown>> = {},
    options?: ErrorOptions,
  ) {
    super(shortened(message, MESSAGE_LENGTH), options);
    this.code = code;
    this.details = Object.fromEntries(Object.entries(details).map(([key, value]) => [key, bounded(value)]));
  }

  /** The statuses of this failure at each border. */
  get status(): ErrorStatus {
    return ERROR_CATALOGUE[this.code];
  }

  /** The form that `--json` prints and the server answers. */
  toJSON(): { code: ErrorCode; message: string; details: Readonly<Record<string, unknown>> } {
    return { code: this.code, message: this.message, details: this.details };
  }
}

/** Names and shapes come from files, which may hold millions of letters; a message stays readable all the same. */
const MESSAGE_LENGTH = 1500;
const DETAIL_LENGTH = 1000;

function shortened(text: string, length: number): string {
  if (text.length <= length) return text;
  const half = Math.floor(length / 2);
  return `${text.slice(0, half)} [...] ${text.slice(-half)}`;
}

function bounded(value: unknown): unknown {
  if (typeof value === "string") return shortened(value, DETAIL_LENGTH);
  if (Array.isArray(value)) return value.slice(0, DETAIL_LENGTH).map(bounded);
  return value;
}

/** The given value as an Error, whatever was thrown. */
export function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}

/**
 * The given value as a {@link PolyheadError}: itself when it is one, else a new one with `code` and the
 * original as its cause.
 */
export function asPolyheadError(thrown: unknown, code: ErrorCode, what: string): PolyheadError {
  if (thrown instanceof PolyheadError) return thrown;
  const cause = asError(thrown);
  return new PolyheadError(code, `${what}: ${cause.message}`, {}, { cause });
}
