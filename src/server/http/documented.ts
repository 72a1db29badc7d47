/** What a route says of itself: for the guard its scope, for the OpenAPI document the rest. */
import type { FastifySchema, RouteShorthandOptions } from "fastify";
import type { TSchema } from "typebox";
import type { Scope } from "../protocol/tokens.js";
import { ErrorAnswer } from "./schemas.js";

/** The parts of OpenAPI's operation that Fastify's own schema has not. */
interface Described extends FastifySchema {
  readonly tags: readonly string[];
  readonly summary: string;
  readonly description?: string;
  readonly security?: readonly Readonly<Record<string, readonly string[]>>[];
}

/** Schemas of a route. */
export interface Documentation {
  /** The JSON body. */
  readonly body?: TSchema;
  /** Bodies by media type, where there are several or none is JSON. */
  readonly bodies?: Readonly<Record<string, TSchema>>;
  readonly query?: TSchema;
  readonly answer?: TSchema;
  /** Of the answer; 200 by default. */
  readonly status?: number;
  readonly description?: string;
}

/** Options of a route: who may use it, and how it is documented. */
export function documented(
  tag: string,
  summary: string,
  scope: Scope | "open",
  { body, bodies, query, answer, status = 200, description }: Documentation = {},
): Pick<RouteShorthandOptions, "schema" | "config"> {
  const contents = bodies ?? (body && { "application/json": body });
  const schema: Described = {
    tags: [tag],
    summary,
    ...(description && { description }),
    ...(scope !== "open" && { security: [{ token: [] }] }),
    ...(contents && {
      body: {
        content: Object.fromEntries(Object.entries(contents).map(([type, each]) => [type, { schema: each }])),
      },
    }),
    ...(query && { querystring: query }),
    response: { ...(answer && { [status]: answer }), "4xx": ErrorAnswer, "5xx": ErrorAnswer },
  };
  return { schema, config: { scope } };
}
