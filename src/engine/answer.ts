/** What requests get: answers of routes and of what runs beside them, out of the values that a batch has made. */
import { asPolyheadError, PolyheadError } from "../base/errors.js";
import type { Identity } from "../onnx/identity.js";
import type { Tensor } from "../tensor/tensor.js";
import type { Member } from "./member.js";
import type { Done } from "./scheduler.js";

/** What a route answers. */
export interface RouteAnswer {
  /** The revision that made it. */
  readonly revision: string;
  /** The revisions of the backbones and adapters that it read, each after what it reads itself. */
  readonly through: readonly string[];
  readonly outputs: Readonly<Record<string, Tensor>>;
  /** What the route's shadows made of the same features. */
  readonly shadows: readonly ShadowAnswer[];
  /** What the main revision made of the same features, when a canary of a compared route answered. */
  readonly reference?: ShadowAnswer;
}

/** What a revision makes that runs beside the answering one, or why it does not. */
export interface ShadowAnswer {
  readonly revision: string;
  readonly outputs: Readonly<Record<string, Tensor>> | undefined;
  readonly error?: PolyheadError;
}

/** What a request gets. */
export interface Answer<Name extends string = string> {
  /** Number of the generation that answered all of it. */
  readonly generation: number;
  /** Whether features came from the cache. */
  readonly cached: boolean;
  /** Segments that ran: the revisions that share each, and how long it took in milliseconds. */
  readonly ran: readonly { readonly usedBy: readonly string[]; readonly milliseconds: number }[];
  /** Milliseconds in the queue, and from there to the result. */
  readonly queued: number;
  readonly running: number;
  /** Of the latter, milliseconds until the batch was put together, and those that taking it apart took afterwards. */
  readonly composing: number;
  readonly splitting: number;
  /** Rows of all requests that ran together; 0 when everything came from the cache. */
  readonly batchRows: number;
  /** The same for requests that ran together; 0 when everything came from the cache. */
  readonly batch: number;
  readonly routes: Readonly<Record<Name, RouteAnswer>>;
}

/** Values that a batch has made for a request, and those that are always the same. */
export interface Made extends Pick<Done, "values" | "failures"> {
  readonly constants: ReadonlyMap<Identity, Tensor>;
}

/**
 * A route's answer out of what was made for it.
 * @throws PolyheadError why a value of the answer is missing
 */
export function answerOf(
  name: string,
  { revision, outputs, providers }: Member,
  { values, failures, constants }: Made,
): Omit<RouteAnswer, "shadows"> {
  const made = [...outputs].map(([output, identity]) => {
    const value = values.get(identity);
    if (value) return [output, value] as const;
    const constant = constants.get(identity);
    if (constant) return [output, structuredClone(constant)] as const; // the caller's to change
    const cause = failures.get(identity);
    if (!cause) throw new PolyheadError("INTERNAL", `Nothing made the output ${JSON.stringify(output)}.`, {});
    const message = `The route ${JSON.stringify(name)} failed: ${cause.message}`;
    throw new PolyheadError(cause.code, message, { ...cause.details, route: name, revision }, { cause });
  });
  const through = providers.map((each) => each.revision);
  return { revision, through, outputs: Object.fromEntries(made) };
}

/** What a revision made that runs beside the answering one; its failure is in the answer. */
export function shadowAnswer(member: Member, made: Made): ShadowAnswer {
  const { revision } = member;
  try {
    return { revision, outputs: answerOf("shadow", member, made).outputs };
  } catch (thrown) {
    return {
      revision,
      outputs: undefined,
      error: asPolyheadError(thrown, "RUN_FAILED", "The shadow failed"),
    };
  }
}
