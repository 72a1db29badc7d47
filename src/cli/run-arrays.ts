/** Arrays through an engine: which of an archive the routes take, and by which names the results are written. */
import { PolyheadError } from "../base/errors.js";
import type { Tensor } from "../tensor/tensor.js";
import type { Routes } from "./routes.js";

/** What a run gave. */
export interface ArrayResults {
  /** By the name of the output, with `ROUTE/` before it where several routes have that name. */
  readonly outputs: ReadonlyMap<string, Tensor>;
  /** Arrays that no route takes. */
  readonly ignored: readonly string[];
}

/**
 * Runs all routes on arrays by name. A lone array may have any name where the routes have one input.
 * @throws PolyheadError INPUT_MISMATCH, RUN_FAILED
 */
export async function runArrays(
  { engine, routes }: Pick<Routes, "engine" | "routes">,
  arrays: ReadonlyMap<string, Tensor>,
): Promise<ArrayResults> {
  const wanted = new Set(routes.flatMap(({ inputs }) => inputs));
  const taken = [...arrays].filter(([name]) => wanted.has(name));
  const [lone, ...more] = arrays.values();
  if (taken.length === 0 && (!lone || more.length > 0)) {
    const [got, expected] = [[...arrays.keys()], [...wanted]];
    throw new PolyheadError(
      "INPUT_MISMATCH",
      `No array has the name of an input: expected ${expected.join(", ")}; got ${got.join(", ") || "none"}.`,
      { expected, got },
    );
  }
  const inputs = taken.length === 0 && lone ? lone : Object.fromEntries(taken);
  const answer = await engine.run(
    routes.map(({ name }) => name),
    inputs,
  );
  const results = routes.flatMap((route) =>
    Object.entries(answer.routes[route.name]?.outputs ?? {}).map(([output, value]) => ({
      route: route.name,
      output,
      value,
    })),
  );
  return {
    outputs: new Map(
      results.map(({ route, output, value }) => {
        const isShared = results.some((other) => other.output === output && other.route !== route);
        return [isShared ? `${route}/${output}` : output, value];
      }),
    ),
    ignored: taken.length === 0 ? [] : [...arrays.keys()].filter((name) => !wanted.has(name)),
  };
}
