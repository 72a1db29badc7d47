/**
 * The settings of `polyhead serve`: one JSON file, environment variables over it, flags over both. A setting is called
 * `queueLimit` in the file, `POLYHEAD_QUEUE_LIMIT` in the environment and `--queue-limit` as a flag. Paths in the file
 * are relative to the file.
 */
import { dirname, resolve } from "node:path";
import type { Static } from "typebox";
import { Type } from "typebox";
import { asError, PolyheadError } from "../../base/errors.js";
import { readFileBytes } from "../../files/disk.js";
import { checked, checkedFields } from "../../server/http/validation.js";
import { DEFAULT_LIMITS } from "../../server/protocol/limits.js";

const Count = (minimum: number, description: string) => Type.Optional(Type.Integer({ minimum, description }));
const Text = (description: string) => Type.Optional(Type.String({ minLength: 1, description }));
const Address = (description: string) =>
  Type.Optional(Type.String({ pattern: "^(\\[[0-9A-Fa-f:.%]+\\]|[^:\\[\\]]+):\\d{1,5}$", description }));

const Token = Type.Object(
  {
    name: Type.String({ minLength: 1, description: "Stands in the history of what was done with it." }),
    secret: Type.String({ minLength: 16 }),
    scopes: Type.Array(Type.Union([Type.Literal("read"), Type.Literal("control")]), { minItems: 1 }),
  },
  { additionalProperties: false },
);
const Tokens = Type.Array(Token);

const Limits = Type.Partial(
  Type.Object(
    Object.fromEntries(
      Object.entries(DEFAULT_LIMITS).map(([name, limit]) => [
        name,
        Type.Integer({ minimum: 1, description: `${limit} by default.` }),
      ]),
    ),
  ),
  { additionalProperties: false, description: "What a client may send at most." },
);

/** The schema of the file. */
export const ServeConfigSchema = Type.Object(
  {
    $schema: Type.Optional(Type.String()),
    store: Text("Folder of the store; the user's cache, with the demo's models, by default."),
    http: Address("HOST:PORT for HTTP, 127.0.0.1:8000 by default; port 0 takes any free one."),
    grpc: Address("HOST:PORT for gRPC, 127.0.0.1:8001 by default; port 0 takes any free one."),
    workers: Count(1, "Batches that run side by side; 2 by default, 1 on one core."),
    threads: Count(1, "Threads of a worker; the processor's cores divided among the workers by default."),
    cacheBytes: Count(0, "Bytes of features to keep; 256 MiB by default."),
    batchRows: Count(1, "Rows in one batch at most; 32 by default."),
    weights: Type.Optional(
      Type.Record(Type.String(), Type.Number({ exclusiveMinimum: 0 }), {
        description: "Shares of the rows that routes get while requests wait, by route; 1 for others.",
      }),
    ),
    watch: Text("Folder whose model files go live under their names when they prove valid."),
    queueLimit: Count(1, "Requests that may wait; 1024 by default."),
    queueMilliseconds: Type.Optional(
      Type.Number({
        exclusiveMinimum: 0,
        description: "Milliseconds that a request may be expected to wait; 5000 by default.",
      }),
    ),
    noticeMilliseconds: Count(
      0,
      "Milliseconds that the server goes on taking requests after it was told to end and says that it is not ready; 1000 by default.",
    ),
    graceMilliseconds: Count(
      1,
      "Milliseconds that requests under way may then take before they are hung up on; 30000 by default.",
    ),
    tokens: Type.Optional(Tokens),
    tokensFile: Text("A JSON file with a list like `tokens`."),
    allowOpen: Type.Optional(
      Type.Boolean({ description: "Lets everybody who reaches the addresses do everything." }),
    ),
    origins: Type.Optional(
      Type.Array(Type.String({ minLength: 1 }), {
        description: "Origins of web pages that may call the server.",
      }),
    ),
    tlsCert: Text("PEM file of the certificate."),
    tlsKey: Text("PEM file of its key."),
    limits: Type.Optional(Limits),
    logLevel: Type.Optional(
      Type.Union(
        ["debug", "info", "warn", "error", "silent"].map((level) => Type.Literal(level)),
        { description: "Least level that is logged; info by default, with a line for each request." },
      ),
    ),
  },
  { additionalProperties: false, title: "polyhead serve" },
);

/** The settings. */
export type ServeConfig = Static<typeof ServeConfigSchema>;

/** Settings that are paths. */
const PATHS = ["store", "watch", "tokensFile", "tlsCert", "tlsKey"] as const;
/** Settings that are lists in a flag or variable. */
const LISTS: ReadonlySet<string> = new Set(["origins"]);
/** Settings that are numbers by name. */
const NUMBERS: ReadonlySet<string> = new Set(["limits", "weights"]);

/**
 * The settings of this start, tokens of the tokens file among them.
 * @param flags texts by the names of the settings; `config` is the file
 * @throws PolyheadError INVALID_ARGUMENT that says where a setting is wrong, FILE_NOT_FOUND
 */
export async function readServeConfig(
  flags: Readonly<Record<string, unknown>>,
  environment: NodeJS.ProcessEnv,
): Promise<ServeConfig> {
  const { config: path = environment.POLYHEAD_CONFIG, ...given } = flags;
  const file = typeof path === "string" && path !== "" ? await readConfigFile(path) : {};
  const config = {
    ...file,
    ...checkedFields(ServeConfigSchema, fromEnvironment(environment), "The environment"),
    ...checkedFields(ServeConfigSchema, given, "The command line"),
  };
  const { tokensFile } = config;
  if ((config.tlsCert === undefined) !== (config.tlsKey === undefined)) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      "TLS needs a certificate and its key; give tlsCert and tlsKey, or neither.",
      {},
    );
  }
  if (tokensFile === undefined) return config;
  const listed = checked(Tokens, await readJson(tokensFile), `The file ${tokensFile}`);
  return { ...config, tokens: [...(config.tokens ?? []), ...listed] };
}

/** `NAME=NUMBER,...` as an object. @throws PolyheadError INVALID_ARGUMENT */
export function parseNumbers(text: string): Record<string, number> {
  return Object.fromEntries(
    text.split(",").map((part) => {
      const [, name, value] = /^\s*([\w.-]+)=(\d+(?:\.\d+)?)\s*$/.exec(part) ?? [];
      if (name !== undefined && value !== undefined) return [name, Number(value)] as const;
      throw new PolyheadError(
        "INVALID_ARGUMENT",
        `${JSON.stringify(part)} is not a name and its number; expected NAME=NUMBER, as --weights food=2 or --limits imagePixels=1000000.`,
        { got: part },
      );
    }),
  );
}

/** The variable of a setting. */
export function variableOf(setting: string): string {
  return `POLYHEAD_${setting.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`;
}

function fromEnvironment(environment: NodeJS.ProcessEnv): Record<string, unknown> {
  const settings = Object.keys(ServeConfigSchema.properties).filter((name) => name !== "$schema");
  return Object.fromEntries(
    settings.flatMap((name): [string, unknown][] => {
      const text = environment[variableOf(name)];
      if (text === undefined || text === "") return [];
      if (name === "tokens") return [[name, parseJson(text, `The variable ${variableOf(name)}`)]];
      if (NUMBERS.has(name)) return [[name, parseNumbers(text)]];
      return [[name, LISTS.has(name) ? text.split(",").map((each) => each.trim()) : text]];
    }),
  );
}

async function readConfigFile(path: string): Promise<ServeConfig> {
  const config = checked(ServeConfigSchema, await readJson(path), `The file ${path}`);
  const folder = dirname(path);
  const placed = PATHS.flatMap((name) => {
    const given = config[name];
    return given === undefined ? [] : [[name, resolve(folder, given)] as const];
  });
  return { ...config, ...Object.fromEntries(placed) };
}

async function readJson(path: string): Promise<unknown> {
  return parseJson(new TextDecoder().decode(await readFileBytes(path, 2 ** 20)), `The file ${path}`);
}

function parseJson(text: string, what: string): unknown {
  try {
    return JSON.parse(text);
  } catch (thrown) {
    // V8's message may quote the text, and with it a secret.
    const place = /at position \d+/.exec(asError(thrown).message)?.[0] ?? "";
    throw new PolyheadError("INVALID_ARGUMENT", `${what} is not JSON${place && `: wrong ${place}`}.`, {});
  }
}
