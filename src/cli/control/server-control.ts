/** Control of a running server, over its HTTP interface. */
import type { Static, TSchema } from "typebox";
import { Type } from "typebox";
import { asError, ERROR_CATALOGUE, type ErrorCode, PolyheadError } from "../../base/errors.js";
import type { Model } from "../../onnx/model.js";
import { readModel } from "../../onnx/read.js";
import { modelBytes } from "../../onnx/write.js";
import { CONTROL_PREFIX } from "../../server/http/control-routes.js";
import { AddAnswer, GenerationAnswer, RoutesAnswer } from "../../server/http/control-schemas.js";
import { checked } from "../../server/http/validation.js";
import type { Author } from "../../server/service.js";
import type { Control, ListedChange, ListedRoute } from "./control.js";

/** Milliseconds for a request, an upload included. */
const PATIENCE = 300_000;
const LETTERS = 300;

const RouteRecord = Type.Object({ revision: Type.String() });
const ChangeRecord = Type.Object({
  at: Type.String(),
  by: Type.String(),
  action: Type.Unsafe<ListedChange["action"]>(Type.String()),
  route: Type.Optional(Type.String()),
  generation: Type.Integer(),
  before: Type.Optional(Type.Object({ revisions: Type.Array(RouteRecord) })),
  after: Type.Optional(Type.Object({ revisions: Type.Array(RouteRecord) })),
  reason: Type.String(),
});
const Changes = Type.Object({ history: Type.Unsafe<ListedChange[]>(Type.Array(ChangeRecord)) });
const Versions = Type.Object({ versions: Type.Optional(Type.Array(Type.String())) });
const Index = Type.Array(Type.Object({ name: Type.String(), version: Type.Optional(Type.String()) }));

/** A server and how to speak to it. */
export interface ServerAddress {
  /** `http://127.0.0.1:8000` */
  readonly url: string;
  readonly token: string | undefined;
}

/** Control of a server. */
export class ServerControl implements Control {
  readonly #base: URL;
  readonly #token: string | undefined;
  readonly #author: Author;

  /** @throws PolyheadError INVALID_ARGUMENT for what is no URL of a server */
  constructor({ url, token }: ServerAddress, author: Author) {
    const base = URL.canParse(url) ? new URL(url) : undefined;
    if (base?.protocol !== "http:" && base?.protocol !== "https:") {
      throw new PolyheadError(
        "INVALID_ARGUMENT",
        `--server is ${JSON.stringify(url)}; expected an address like http://127.0.0.1:8000.`,
        { server: url },
      );
    }
    this.#base = base;
    this.#token = token;
    this.#author = author;
  }

  async add(model: Model, title: string, route: string | undefined): Promise<string> {
    const query = new URLSearchParams({ title, ...(route !== undefined && { route }) });
    if (this.#author.reason !== undefined) query.set("reason", this.#author.reason);
    const path = `${CONTROL_PREFIX}/models?${query}`;
    const answer = await this.#ask("POST", path, AddAnswer, new Blob([Buffer.from(modelBytes(model))]));
    return answer.revision;
  }

  async addKept(revision: string, route: string): Promise<void> {
    const body = { revision, route, ...this.#reason() };
    await this.#ask("POST", `${CONTROL_PREFIX}/models`, AddAnswer, body);
  }

  async model(revision: string): Promise<Model> {
    const path = `${CONTROL_PREFIX}/models/${encodeURIComponent(revision)}`;
    return this.#fetch("GET", path, async (response) =>
      readModel(new Uint8Array(await response.arrayBuffer())),
    );
  }

  async routes(): Promise<readonly ListedRoute[]> {
    const { routes } = await this.#ask("GET", `${CONTROL_PREFIX}/routes`, RoutesAnswer);
    return routes.map(({ comparisons: _, ...route }) => route);
  }

  async history(route?: string): Promise<readonly ListedChange[]> {
    const of = route === undefined ? "" : `/routes/${encodeURIComponent(route)}`;
    const { history } = await this.#ask("GET", `${CONTROL_PREFIX}${of}/history`, Changes);
    return route === undefined ? history : history.map((change) => ({ route, ...change }));
  }

  async remove(route: string): Promise<void> {
    const { reason } = this.#author;
    const query = reason === undefined ? "" : `?${new URLSearchParams({ reason })}`;
    const path = `${CONTROL_PREFIX}/routes/${encodeURIComponent(route)}${query}`;
    await this.#ask("DELETE", path, Type.Object({}));
  }

  async revisions(names: readonly string[]): Promise<ReadonlySet<string>> {
    const [routes, history, index] = await Promise.all([
      this.routes(),
      this.history(),
      this.#ask("POST", "/v2/repository/index", Index, {}),
    ]);
    const own = routes.filter(({ name }) => names.includes(name));
    const models = await Promise.all(
      own.map(({ name }) => this.#ask("GET", `/v2/models/${encodeURIComponent(name)}`, Versions)),
    );
    const targets = [...routes, ...history.flatMap(({ before, after }) => [before, after])];
    return new Set([
      ...models.flatMap(({ versions = [] }) => versions),
      ...index.flatMap(({ version }) => version ?? []),
      ...targets.flatMap((target) => target?.revisions ?? []).map(({ revision }) => revision),
    ]);
  }

  async switch(targets: Readonly<Record<string, string>>): Promise<number> {
    const body = { targets, ...this.#reason() };
    return (await this.#ask("POST", `${CONTROL_PREFIX}/switch`, GenerationAnswer, body)).generation;
  }

  async rollback(route: string): Promise<number> {
    const path = `${CONTROL_PREFIX}/routes/${encodeURIComponent(route)}/rollback`;
    return (await this.#ask("POST", path, GenerationAnswer, this.#reason())).generation;
  }

  #reason(): { readonly reason?: string } {
    const { reason } = this.#author;
    return reason === undefined ? {} : { reason };
  }

  #ask<Schema extends TSchema>(
    method: string,
    path: string,
    schema: Schema,
    body?: Blob | object,
  ): Promise<Static<Schema>> {
    const read = async (response: Response) =>
      checked(schema, JSON.parse(await response.text()), "The server's answer");
    return this.#fetch(method, path, read, body);
  }

  /** @throws PolyheadError what the server answers; CLOSED when it does not */
  async #fetch<T>(
    method: string,
    path: string,
    read: (response: Response) => Promise<T>,
    body?: Blob | object,
  ): Promise<T> {
    const headers = new Headers({ "x-polyhead-author": this.#author.by });
    if (this.#token !== undefined) headers.set("authorization", `Bearer ${this.#token}`);
    const isFile = body instanceof Blob;
    if (body) headers.set("content-type", isFile ? "application/octet-stream" : "application/json");
    const content = body && !isFile ? JSON.stringify(body) : body;
    const signal = AbortSignal.timeout(PATIENCE);
    try {
      const response = await fetch(new URL(path, this.#base), {
        method,
        headers,
        signal,
        ...(content === undefined ? {} : { body: content }),
      });
      if (!response.ok) throw refusal(response.status, await response.text());
      return await read(response);
    } catch (thrown) {
      if (thrown instanceof PolyheadError) throw thrown;
      const { cause, message } = asError(thrown);
      throw new PolyheadError(
        "CLOSED",
        `The server at ${this.#base.origin} does not answer: ${cause instanceof Error ? cause.message : message}. Check that it runs there, or leave --server out to change its store.`,
        { server: this.#base.origin },
        { cause: thrown },
      );
    }
  }
}

/** The failure that the server told of. */
function refusal(status: number, text: string): PolyheadError {
  let [code, message]: [ErrorCode, string] = ["INVALID_ARGUMENT", text.slice(0, LETTERS)];
  try {
    const answer: unknown = JSON.parse(text);
    if (typeof answer === "object" && answer !== null) {
      if ("error" in answer && typeof answer.error === "string") message = answer.error;
      if ("code" in answer && isCode(answer.code)) code = answer.code;
      else code = codeOf(status);
    }
  } catch {
    message = `The server answered with status ${status}: ${message}`;
  }
  return new PolyheadError(code, message, { status });
}

function isCode(value: unknown): value is ErrorCode {
  return typeof value === "string" && Object.hasOwn(ERROR_CATALOGUE, value);
}

/** Paths of the Open Inference Protocol give no code. */
function codeOf(status: number): ErrorCode {
  const found = Object.entries(ERROR_CATALOGUE).find(([, { http }]) => http === status)?.[0];
  return isCode(found) ? found : "INTERNAL";
}
