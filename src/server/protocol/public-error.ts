/**
 * What a client may learn of a failure. Faults of the server and failures with its files are told without
 * details, by the id under which they are logged; all other messages are shown without paths of the host.
 */
import { readdirSync } from "node:fs";
import { parse } from "node:path";
import { asError, type ErrorCode, PolyheadError } from "../../base/errors.js";

/** A failure as clients see it. */
export interface PublicError {
  readonly code: ErrorCode;
  readonly message: string;
  /** Whether the message hides what happened, so that the log has to tell it. */
  readonly isHidden: boolean;
  readonly error: PolyheadError;
}

const HIDDEN: ReadonlySet<ErrorCode> = new Set([
  "INTERNAL",
  "FILE_NOT_FOUND",
  "FILE_NOT_WRITTEN",
  "PATH_REFUSED",
]);

/**
 * The failure for a client.
 * @param requestId under which the log has the rest
 */
export function publicError(thrown: unknown, requestId: string): PublicError {
  const cause = asError(thrown);
  const error =
    cause instanceof PolyheadError ? cause : new PolyheadError("INTERNAL", cause.message, {}, { cause });
  const { code } = error;
  if (HIDDEN.has(code)) {
    const message = `The server failed: ${error.status.meaning}. Its log has more under request ${requestId}.`;
    return { code, message, isHidden: true, error };
  }
  return { code, message: withoutPaths(error.message), isHidden: false, error };
}

/** Seconds after which a client that was turned away may come again. */
export function retryAfter({ details }: PolyheadError): number {
  const { retryAfter: seconds } = details;
  return typeof seconds === "number" && seconds >= 1 ? Math.ceil(seconds) : 1;
}

/** The plan in the details of a failure, as clients may see it; undefined where there is none. */
export function publicPlan({ details }: PolyheadError): unknown {
  if (details.plan === undefined) return undefined;
  return JSON.parse(JSON.stringify(details.plan), (_, value) =>
    typeof value === "string" ? withoutPaths(value) : value,
  );
}

/** The text without absolute paths of this machine and without stack frames. */
export function withoutPaths(text: string): string {
  return text
    .replace(/\n\s+at [\s\S]*$/, "")
    .replace(quotedPath, '"[path]"')
    .replace(barePath, "[path]");
}

// Values in graphs have names like "/layer1/conv/Conv_output_0": only what begins like a folder here is a path.
const roots = topFolders().map((name) => name.replace(/[^\w-]/g, "\\$&"));
const start = `(?:file://)?(?:[A-Za-z]:[\\\\/]|/(?:${roots.join("|")})/)`;
const quotedPath = new RegExp(`"${start}[^"]*"`, "g");
const barePath = new RegExp(`(?<![\\w.\\]/])${start}[^\\s"'\`,;)]*`, "g");

function topFolders(): string[] {
  const { root } = parse(process.cwd());
  const known = ["home", "root", "tmp", "var", "usr", "opt", "etc", "mnt", "srv", "Users"];
  try {
    return [...new Set([...known, ...readdirSync(root)])];
  } catch {
    return known;
  }
}
