/** Random histories of a store against a model of it in memory: nothing is lost, nothing comes back, nothing breaks. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { expect, it } from "vitest";
import { PolyheadError } from "../../src/base/errors.js";
import { revisionOf } from "../../src/onnx/revision.js";
import { type Route, routeTo, Store } from "../../src/store/index.js";
import { addition, MUCH } from "./samples.js";

/** Some models; the last has its weights in a blob of their own. */
const MODELS = [addition(0), addition(1), addition(2), addition(3, MUCH)];
const REVISIONS = await Promise.all(MODELS.map(revisionOf));
const NAMES = ["a", "b"];

const model = fc.nat(MODELS.length - 1);
const name = fc.constantFrom(...NAMES);
const step = fc.oneof(
  fc.record({ kind: fc.constant("put" as const), model }),
  fc.record({ kind: fc.constant("put" as const), model }),
  fc.record({ kind: fc.constant("remove" as const), model }),
  fc.record({ kind: fc.constant("set" as const), name, model, shadow: fc.option(model) }),
  fc.record({ kind: fc.constant("delete" as const), name }),
  fc.record({ kind: fc.constant("gc" as const) }),
  fc.record({ kind: fc.constant("reopen" as const) }),
);

/** What the store must be like. */
class Expected {
  readonly models = new Set<number>();
  readonly routes = new Map<string, Route>();
  readonly needed = new Set<number>();
  generation = 0;
}

const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => "done",
    (thrown) => (thrown instanceof PolyheadError ? thrown.code : thrown),
  );

it("keeps what it was told to keep through any history", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
      const folder = await mkdtemp(join(tmpdir(), "store-"));
      try {
        let store = await Store.open(folder);
        const expected = new Expected();
        const changes: (string | null)[] = [];
        const author = { by: "property", reason: "random" };
        for (const each of steps) {
          switch (each.kind) {
            case "put": {
              const given = MODELS[each.model] ?? addition(0);
              expect(await store.put(given)).toBe(REVISIONS[each.model]);
              expected.models.add(each.model);
              break;
            }
            case "remove": {
              const got = await codeOf(store.remove(REVISIONS[each.model] ?? ""));
              const inUse = expected.needed.has(each.model);
              expect(got).toBe(expected.models.has(each.model) ? (inUse ? "IN_USE" : "done") : "NOT_FOUND");
              if (got === "done") expected.models.delete(each.model);
              break;
            }
            case "set": {
              const used = [each.model, ...(each.shadow === null ? [] : [each.shadow])];
              const route: Route = {
                ...routeTo(REVISIONS[each.model] ?? ""),
                ...(each.shadow !== null && { shadows: [REVISIONS[each.shadow] ?? ""] }),
              };
              const isNew = JSON.stringify(expected.routes.get(each.name)) !== JSON.stringify(route);
              const got = await codeOf(store.change((routes) => routes.set(each.name, route), author));
              expect(got).toBe(used.every((at) => expected.models.has(at)) ? "done" : "NOT_FOUND");
              if (got !== "done" || !isNew) break;
              expected.routes.set(each.name, route);
              for (const at of used) expected.needed.add(at);
              expected.generation++;
              changes.push(each.name);
              break;
            }
            case "delete": {
              await store.change((routes) => routes.delete(each.name), author);
              if (!expected.routes.delete(each.name)) break;
              expected.generation++;
              changes.push(each.name);
              break;
            }
            case "gc":
              await store.gc({ grace: 0 });
              expect((await store.verify()).garbage).toBe(0);
              break;
            case "reopen":
              store = await Store.open(folder);
          }
        }
        const read = await Store.open(folder, { readOnly: true });
        const { generation, routes, history } = await read.routes();
        expect([generation, routes]).toEqual([expected.generation, expected.routes]);
        expect(history.map((change) => change.routes[0]?.name)).toEqual(changes);
        const revisions = [...expected.models].map((at) => REVISIONS[at]);
        expect((await read.models()).map(({ revision }) => revision).sort()).toEqual(revisions.sort());
        for (const revision of revisions)
          expect(await revisionOf(await read.model(revision ?? ""))).toBe(revision);
        expect((await read.verify()).findings).toEqual([]);
      } finally {
        await rm(folder, { recursive: true, force: true });
      }
    }),
    { numRuns: 40 },
  );
});
