/**
 * Which outputs of which routes a request asks for, and by what names they are answered. `output` is one of the
 * request's model; `route/output` is one of another route, which the request thereby names. A request that asks
 * for nothing in particular gets all outputs of all its routes: under their own names for one route, as
 * `route/output` for several.
 */
import { PolyheadError } from "../../base/errors.js";
import type { Tensor } from "../../tensor/tensor.js";
import type { InferenceResult, Service } from "../service.js";
import { type Limits, limitExceeded } from "./limits.js";
import { checkModelName, checkName } from "./names.js";
import { shown } from "./shown.js";

/** What a request asks of the service. */
export interface Wanted {
  /** All routes that have to run; the request's model is the first. */
  readonly routes: readonly string[];
  /** What was asked for, in its order; undefined for everything. */
  readonly outputs: readonly WantedOutput[] | undefined;
}

/** One output that was asked for. */
export interface WantedOutput {
  readonly route: string;
  readonly output: string;
  /** As the client calls it. */
  readonly name: string;
}

/** One output of the answer. */
export interface AnsweredOutput extends WantedOutput {
  readonly revision: string;
  readonly tensor: Tensor;
}

/**
 * Finds out what a request asks for and refuses what its models do not have, before anything runs.
 * @param model of the request's path
 * @param routes that the parameters name beside it
 * @param names of outputs; empty for everything
 * @throws PolyheadError NOT_FOUND, INVALID_ARGUMENT, LIMIT_EXCEEDED
 */
export function wantedOutputs(
  service: Pick<Service, "model">,
  model: string,
  version: string | undefined,
  routes: readonly string[],
  names: readonly unknown[],
  limits: Limits,
): Wanted {
  if (names.length > limits.entries)
    throw limitExceeded("The request has", names.length, limits.entries, "outputs");
  const own = new Set(service.model(model, version).outputs.map(({ name }) => name));
  const outputs = names.map((name) =>
    resolve(checkName(name, "An output's name", limits), model, own, limits),
  );
  const all = [...new Set([model, ...routes, ...outputs.map(({ route }) => route)])];
  if (all.length > limits.entries)
    throw limitExceeded("The request has", all.length, limits.entries, "routes");
  const known = new Map(all.map((route) => [route, route === model ? own : outputsOf(service, route)]));
  const seen = new Set<string>();
  for (const { route, output, name } of outputs) {
    if (!known.get(route)?.has(output)) throw unknown(route, output, [...(known.get(route) ?? [])]);
    if (seen.has(name)) {
      throw new PolyheadError("INVALID_ARGUMENT", `The output ${shown(name)} is asked for twice; ask once.`, {
        name,
      });
    }
    seen.add(name);
  }
  return { routes: all, outputs: outputs.length > 0 ? outputs : undefined };
}

/**
 * What was asked for, out of what the service answered.
 * @throws PolyheadError INVALID_ARGUMENT when a revision that came meanwhile has no such output
 */
export function answeredOutputs(wanted: Wanted, result: InferenceResult): AnsweredOutput[] {
  const several = wanted.routes.length > 1;
  const outputs =
    wanted.outputs ??
    wanted.routes.flatMap((route) =>
      Object.keys(result.routes[route]?.outputs ?? {}).map((output) => ({
        route,
        output,
        name: several ? `${route}/${output}` : output,
      })),
    );
  return outputs.map((each) => {
    const answer = result.routes[each.route];
    const tensor =
      answer && Object.hasOwn(answer.outputs, each.output) ? answer.outputs[each.output] : undefined;
    if (!answer || !tensor) throw unknown(each.route, each.output, Object.keys(answer?.outputs ?? {}));
    return { ...each, revision: answer.revision, tensor };
  });
}

function resolve(name: string, model: string, own: ReadonlySet<string>, limits: Limits): WantedOutput {
  const slash = name.indexOf("/");
  // Outputs of imported graphs have slashes in their names; those of the request's model come first.
  if (own.has(name) || slash <= 0) return { route: model, output: name, name };
  const route = checkModelName(name.slice(0, slash), "A route in an output's name", limits);
  return { route, output: name.slice(slash + 1), name };
}

function outputsOf(service: Pick<Service, "model">, route: string): ReadonlySet<string> {
  return new Set(service.model(route).outputs.map(({ name }) => name));
}

function unknown(route: string, output: string, expected: readonly string[]): PolyheadError {
  return new PolyheadError(
    "INVALID_ARGUMENT",
    `The model ${shown(route)} has no output ${shown(output)}; it has ${expected.slice(0, 20).map(shown).join(", ")}.`,
    { model: route, output, expected },
  );
}
