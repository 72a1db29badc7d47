/** Control of a store that no server is asked about: the same changes, made where the next start finds them. */
import { PolyheadError } from "../../base/errors.js";
import { openEngine } from "../../index.js";
import { toEvaluation } from "../../onnx/evaluation.js";
import { readMetadata } from "../../onnx/metadata.js";
import type { Model } from "../../onnx/model.js";
import { type NamedBackbone, withPlan } from "../../server/head-plan.js";
import { nameOf } from "../../server/live-models.js";
import type { Author } from "../../server/service.js";
import { fromStored, historyOf } from "../../server/targets.js";
import {
  isRetargeting,
  type Route,
  requireRouteName,
  retargeted,
  routeTo,
  type Store,
  withCandidate,
} from "../../store/index.js";
import type { Control, ListedChange, ListedRoute } from "./control.js";

/** Control of a store. */
export class StoreControl implements Control {
  readonly #store: Store;
  readonly #author: Author;

  constructor(store: Store, author: Author) {
    this.#store = store;
    this.#author = author;
  }

  async add(given: Model, title: string, route: string | undefined): Promise<string> {
    if (route !== undefined) requireRouteName(route);
    const { model } = toEvaluation(given);
    await this.#requireLoadable(model, route);
    const revision = await this.#store.put(model, { title });
    if (route !== undefined) await this.#addRevision(revision, route);
    return revision;
  }

  async addKept(revision: string, route: string): Promise<void> {
    requireRouteName(route);
    await this.#requireLoadable(await this.#store.model(revision), route);
    await this.#addRevision(revision, route);
  }

  async #addRevision(revision: string, route: string): Promise<void> {
    await this.#change((routes) => {
      const now = routes.get(route);
      routes.set(route, now ? withCandidate(now, revision) : routeTo(revision));
    }, "add");
  }

  /** @throws PolyheadError what {@link requireLoadable} throws, with the way to a backbone that is there */
  async #requireLoadable(model: Model, route: string | undefined): Promise<void> {
    await requireLoadable(this.#store, model).catch(async (thrown: unknown) => {
      throw await withPlan(thrown, model, route, () => this.#backbones());
    });
  }

  async #backbones(): Promise<NamedBackbone[]> {
    const kept = (await this.#store.models()).filter(({ role }) => role === "backbone");
    return Promise.all(
      kept.map(async ({ title, revision }) => ({
        name: nameOf(title),
        model: await this.#store.model(revision),
      })),
    );
  }

  model(revision: string): Promise<Model> {
    return this.#store.model(revision);
  }

  async routes(): Promise<readonly ListedRoute[]> {
    const [{ routes }, models] = await Promise.all([this.#store.routes(), this.#store.models()]);
    return [...routes].map(([name, route]) => {
      const main = models.find(({ revision }) => revision === route.targets[0]?.revision);
      return { name, ...fromStored(route), task: main?.task, labels: main?.labels };
    });
  }

  async history(route?: string): Promise<readonly ListedChange[]> {
    const { routes, history } = await this.#store.routes();
    const listed = history.toReversed().flatMap(historyOf);
    if (route === undefined) return listed;
    const own = listed.filter((change) => change.route === route);
    if (own.length === 0 && !routes.has(route)) throw noRoute(route);
    return own;
  }

  async remove(route: string): Promise<void> {
    await this.#change((routes) => {
      if (!routes.delete(route)) throw noRoute(route);
    }, "remove");
  }

  async revisions(): Promise<ReadonlySet<string>> {
    return new Set((await this.#store.models()).map(({ revision }) => revision));
  }

  async switch(targets: Readonly<Record<string, string>>): Promise<number> {
    return this.#change((routes) => {
      for (const [name, revision] of Object.entries(targets)) {
        const now = routes.get(name);
        if (!now) throw noRoute(name);
        routes.set(name, retargeted(now, routeTo(revision)));
      }
    }, "switch");
  }

  async rollback(route: string): Promise<number> {
    const { history } = await this.#store.routes();
    const last = history
      .flatMap(({ routes }) => routes)
      .findLast((change) => change.name === route && isRetargeting(change));
    const before = last?.from;
    return this.#change((routes) => {
      const now = routes.get(route);
      if (!now) throw noRoute(route);
      if (!before) {
        throw new PolyheadError(
          "NOT_FOUND",
          `The route ${JSON.stringify(route)} has no earlier revision to go back to.`,
          { route },
        );
      }
      if (isRetargeting({ from: now, to: last.to })) throw changedMeanwhile(route);
      routes.set(route, retargeted(now, before));
    }, "rollback");
  }

  async #change(update: (routes: Map<string, Route>) => void, action: string): Promise<number> {
    const { by, reason } = this.#author;
    return (await this.#store.change(update, { by, reason: reason ?? action, action })).generation;
  }
}

/**
 * Loads a model beside those of the store that it may read, and lets go of it.
 * @throws PolyheadError HEAD_MISMATCH, LOAD_FAILED and what else loading throws
 */
async function requireLoadable(store: Store, model: Model): Promise<void> {
  const { role, taps = [] } = readMetadata(model);
  const engine = await openEngine({ cacheBytes: 0 });
  try {
    if (role !== "backbone" && taps.length > 0) {
      const others = (await store.models()).filter((each) => each.role !== "head");
      const makers = others.filter(
        (each) => each.role === "backbone" && each.taps?.some((tap) => isAmong(tap, taps)),
      );
      const isMade = taps.every((tap) =>
        makers.some((each) => each.taps?.some((made) => isAmong(made, [tap]))),
      );
      // Without a backbone that says so, any model may compute what the head reads.
      const adaptersLast = others.toSorted(
        (a, b) => Number(a.role === "adapter") - Number(b.role === "adapter"),
      );
      for (const { revision } of isMade ? makers : adaptersLast) {
        const other = await store.model(revision);
        await engine.load(other).catch((thrown: unknown) => {
          if (!(thrown instanceof PolyheadError && thrown.code === "HEAD_MISMATCH")) throw thrown;
        });
      }
    }
    await engine.load(model);
  } finally {
    await engine.close();
  }
}

function isAmong(
  tap: { readonly identity: string },
  taps: readonly { readonly identity: string }[],
): boolean {
  return taps.some(({ identity }) => identity === tap.identity);
}

function noRoute(route: string): PolyheadError {
  return new PolyheadError(
    "NOT_FOUND",
    `There is no route ${JSON.stringify(route)}; \`polyhead heads ls\` lists those that are there.`,
    { route },
  );
}

function changedMeanwhile(route: string): PolyheadError {
  return new PolyheadError(
    "IN_USE",
    `The route ${JSON.stringify(route)} was changed by somebody else just now; look at it and try again.`,
    { route },
  );
}
