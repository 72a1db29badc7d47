/**
 * The plan for a head that was refused: which way leads it to a backbone of this server, why, and the line that does it.
 * Told from graphs alone, and in names that the client knows; nothing of the host is in it.
 */
import { PolyheadError } from "../base/errors.js";
import type { Model } from "../onnx/model.js";
import { reasonFromGraphs, type Way } from "../plan/reasoning.js";

/** What a client gets beside the refusal. */
export interface HeadPlan {
  /** Of the backbone. */
  readonly backbone: string;
  readonly way: Way;
  readonly reasons: readonly string[];
  /** What only images would tell. */
  readonly unknown: readonly string[];
  readonly command: string;
}

/** A backbone by the name that it was kept under. */
export interface NamedBackbone {
  readonly name: string;
  readonly model: Model;
}

/** A head that can be adapted is worth more than one that has to be made anew. */
const BEST_FIRST: readonly Way[] = ["swap", "adapt", "tune"];

/**
 * The refusal with a plan in its details and its message, where it is about a head that does not fit.
 * @param head what was refused, in evaluation mode
 * @param backbones that the server has
 */
export async function withPlan(
  thrown: unknown,
  head: Model,
  route: string | undefined,
  backbones: () => Promise<readonly NamedBackbone[]>,
): Promise<unknown> {
  if (!(thrown instanceof PolyheadError) || thrown.code !== "HEAD_MISMATCH") return thrown;
  const plans: HeadPlan[] = [];
  for (const { name, model } of await backbones()) {
    try {
      const { way, reasons, unknown } = await reasonFromGraphs(model, head);
      plans.push({ backbone: name, way, reasons, unknown, command: commandFor(way, name, route ?? "head") });
    } catch {
      // A head of which not even that can be said is refused as it was.
    }
  }
  const [plan] = plans.sort((a, b) => BEST_FIRST.indexOf(a.way) - BEST_FIRST.indexOf(b.way));
  if (!plan) return thrown;
  return new PolyheadError(
    thrown.code,
    `${thrown.message} The way to ${JSON.stringify(plan.backbone)} is ${plan.way}: ${plan.command}`,
    { ...thrown.details, plan },
    { cause: thrown },
  );
}

function commandFor(way: Way, backbone: string, head: string): string {
  if (way === "tune") return `polyhead teach --backbone ${backbone}.onnx --data PHOTOS -o ${head}-new.onnx`;
  return `polyhead plan --backbone ${backbone}.onnx --head ${head}.onnx --from OWN-BACKBONE.onnx --data PHOTOS --apply made`;
}
