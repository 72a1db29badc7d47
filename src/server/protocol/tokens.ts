/**
 * Who may do what: bearer tokens with scopes, and the rule that nobody listens beyond the loopback without them.
 * `control` includes `read`.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { isIPv4 } from "node:net";
import { PolyheadError } from "../../base/errors.js";

/** What a token allows: inference and metadata, or changing routes and models as well. */
export type Scope = "read" | "control";

/** A token of the configuration. */
export interface Token {
  /** Stands in the history of what was done with it. */
  readonly name: string;
  readonly secret: string;
  readonly scopes: readonly Scope[];
}

const LEAST_LENGTH = 16;
const BEARER = /^Bearer +([\w\-.~+/]+=*) *$/i;

/** The tokens that a server knows; none at all allows everything. */
export class Tokens {
  readonly #known: readonly {
    readonly name: string;
    readonly digest: Buffer;
    readonly scopes: readonly Scope[];
  }[];

  /** @throws PolyheadError INVALID_ARGUMENT for short secrets, and for names or secrets that stand twice */
  constructor(tokens: readonly Token[]) {
    for (const { name, secret } of tokens) {
      if (secret.length < LEAST_LENGTH || !BEARER.test(`Bearer ${secret}`)) {
        throw new PolyheadError(
          "INVALID_ARGUMENT",
          `The secret of token ${JSON.stringify(name)} is not one: expected at least ${LEAST_LENGTH} of the letters A-Z a-z 0-9 - . _ ~ + /.`,
          { name },
        );
      }
    }
    for (const kind of ["name", "secret"] as const) {
      if (new Set(tokens.map((token) => token[kind])).size !== tokens.length) {
        throw new PolyheadError("INVALID_ARGUMENT", `Two tokens have one ${kind}; give each its own.`, {});
      }
    }
    this.#known = tokens.map(({ name, secret, scopes }) => ({ name, digest: digestOf(secret), scopes }));
  }

  /** Whether requests need a token. */
  get isRequired(): boolean {
    return this.#known.length > 0;
  }

  /**
   * The name of the token in an `Authorization` header (or metadata); undefined where no token is needed.
   * @throws PolyheadError UNAUTHENTICATED, FORBIDDEN
   */
  authorize(header: string | undefined, scope: Scope): string | undefined {
    if (!this.isRequired) return undefined;
    const secret = BEARER.exec(header ?? "")?.[1];
    if (secret === undefined) {
      throw new PolyheadError(
        "UNAUTHENTICATED",
        "This server asks for a token; send the header `Authorization: Bearer TOKEN`.",
        {},
      );
    }
    const digest = digestOf(secret);
    // All are compared, so that time tells nothing about which one was nearly right.
    const [token] = this.#known.filter((known) => timingSafeEqual(known.digest, digest));
    if (!token)
      throw new PolyheadError("UNAUTHENTICATED", "The token is not one that this server knows.", {});
    if (!token.scopes.includes(scope) && !token.scopes.includes("control")) {
      throw new PolyheadError(
        "FORBIDDEN",
        `The token ${JSON.stringify(token.name)} lacks the scope ${scope}, which this request needs.`,
        { expected: scope, got: token.scopes },
      );
    }
    return token.name;
  }
}

/**
 * Holds a server without tokens to the loopback.
 * @param isOpen the operator's word that everybody who reaches the address may do everything
 * @throws PolyheadError INVALID_ARGUMENT
 */
export function checkExposure(host: string, tokens: Tokens, isOpen: boolean): void {
  if (isLoopback(host) || tokens.isRequired || isOpen) return;
  throw new PolyheadError(
    "INVALID_ARGUMENT",
    `Listening on ${JSON.stringify(host)} would let everybody who reaches it change this server. Give it tokens, listen on 127.0.0.1, or allow open access explicitly.`,
    { host },
  );
}

/** Whether only this machine reaches the address. */
export function isLoopback(host: string): boolean {
  return (
    host === "localhost" || host === "::1" || host === "[::1]" || (isIPv4(host) && host.startsWith("127."))
  );
}

function digestOf(secret: string): Buffer {
  return createHash("sha256").update(secret).digest();
}
