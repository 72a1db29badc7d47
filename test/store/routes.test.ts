/** Routes of a store: changed as a whole, remembered, refused where they make no sense, noticed by others. */
import { link, mkdir, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { HISTORY_LIMIT, type Route, routeTo, Store } from "../../src/store/index.js";
import { addition, author, refuses, temporaryFolder } from "./samples.js";

/** A store with two models. */
async function pair() {
  const store = await Store.open(await temporaryFolder());
  return { store, first: await store.put(addition(1)), second: await store.put(addition(2)) };
}

/** A copy of a folder that shares its files, as backups make it. */
async function linkFolder(from: string, to: string): Promise<void> {
  await mkdir(to, { recursive: true });
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const [own, other] = [join(from, entry.name), join(to, entry.name)];
    await (entry.isDirectory() ? linkFolder(own, other) : link(own, other));
  }
}

describe("routes", () => {
  it("are none at the beginning", async () => {
    const { store } = await pair();
    expect(await store.routes()).toEqual({ generation: 0, routes: new Map(), history: [] });
  });

  it("are read by another store object as they were changed, with who, when and why", async () => {
    const { store, first, second } = await pair();
    const canary: Route = {
      targets: [
        { revision: first, weight: 9 },
        { revision: second, weight: 1 },
      ],
      stickyKey: "user",
      shadows: [second],
      limits: { maxErrorRate: 0.01, maxLatency: 50, minAgreement: 0.9, minRequests: 100 },
    };
    await store.change((routes) => routes.set("food", routeTo(first)).set("coco", routeTo(first)), author);
    const before = Date.now();
    const after = await store.change(
      (routes) => {
        routes.set("food", canary);
        routes.delete("coco");
      },
      { by: "ada", reason: "try the second" },
    );
    const read = await (await Store.open(store.directory)).routes();
    expect(read).toEqual(after);
    expect(read.generation).toBe(2);
    expect(read.routes).toEqual(new Map([["food", canary]]));
    expect(read.history).toHaveLength(2);
    const change = read.history[1];
    expect(change).toMatchObject({
      by: "ada",
      reason: "try the second",
      before: 1,
      after: 2,
      routes: [
        { name: "food", from: routeTo(first), to: canary },
        { name: "coco", from: routeTo(first), to: null },
      ],
    });
    expect(Date.parse(change?.at ?? "")).toBeGreaterThanOrEqual(before);
  });

  it("stay as they are when a change changes nothing, or fails", async () => {
    const { store, first } = await pair();
    await store.change((routes) => routes.set("food", routeTo(first)), author);
    const version = await store.version();
    const same = await store.change((routes) => routes.set("food", routeTo(first)), author);
    expect(same.generation).toBe(1);
    const failure = new Error("not now");
    const failing = store.change((routes) => {
      routes.clear();
      throw failure;
    }, author);
    await expect(failing).rejects.toBe(failure);
    await refuses(
      store.change((routes) => routes.set("ok", routeTo(first)).set("food", routeTo("0".repeat(64))), author),
      "NOT_FOUND",
    );
    expect(await store.version()).toBe(version);
  });

  it.each<[string, string, unknown]>([
    ["a name with a slash", "a/b", undefined],
    ["a name that is a path", "..", undefined],
    ["an empty name", "", undefined],
    ["a long name", "a".repeat(129), undefined],
    ["no targets", "a", { targets: [] }],
    ["a revision that is none", "a", { targets: [{ revision: "../x", weight: 1 }] }],
    ["a weight of nothing", "a", { targets: [{ revision: "0".repeat(64), weight: 0 }] }],
    ["a weight without end", "a", { targets: [{ revision: "0".repeat(64), weight: Infinity }] }],
    ["one revision twice", "a", { targets: Array(2).fill({ revision: "0".repeat(64), weight: 1 }) }],
    ["an unknown key", "a", { ...routeTo("0".repeat(64)), colour: "red" }],
    ["a share beyond one", "a", { ...routeTo("0".repeat(64)), limits: { maxErrorRate: 2 } }],
    ["an unknown limit", "a", { ...routeTo("0".repeat(64)), limits: { constructor: 1 } }],
    ["nothing at all", "a", null],
  ])("refuse %s", async (_, name, route) => {
    const { store, first } = await pair();
    const given = (route === undefined ? routeTo(first) : route) as Route;
    await refuses(
      store.change((routes) => routes.set(name, given), author),
      "INVALID_ARGUMENT",
    );
    expect((await store.routes()).generation).toBe(0);
  });

  it("refuse changes by nobody", async () => {
    const { store, first } = await pair();
    await refuses(
      store.change((routes) => routes.set("a", routeTo(first)), { by: "", reason: "" }),
      "INVALID_ARGUMENT",
    );
  });

  it("may have any name that objects have", async () => {
    const { store, first } = await pair();
    await store.change((routes) => routes.set("constructor", routeTo(first)), author);
    const read = await (await Store.open(store.directory)).routes();
    expect([...read.routes.keys()]).toEqual(["constructor"]);
  });

  it("remember the last changes only, and give up the models of the others", async () => {
    const { store, first, second } = await pair();
    await store.change((routes) => routes.set("a", routeTo(first)), author);
    for (let at = 0; at < HISTORY_LIMIT; at++)
      await store.change(
        (routes) => routes.set("a", { targets: [{ revision: second, weight: at + 1 }] }),
        author,
      );
    await refuses(store.remove(first), "IN_USE"); // the oldest remembered change was made from it
    await store.change((routes) => routes.set("a", routeTo(second)), author);
    const { history, generation } = await store.routes();
    expect([history.length, history[0]?.after, generation]).toEqual([HISTORY_LIMIT, 3, HISTORY_LIMIT + 2]);
    await store.remove(first);
    expect((await store.verify()).findings).toEqual([]);
  });

  it("take so many files at most, and leave old ones to those who read them for some seconds", async () => {
    const { store, first } = await pair();
    const other = await Store.open(store.directory);
    const weigh = (weight: number) =>
      store.change((routes) => routes.set("a", { targets: [{ revision: first, weight }] }), author);
    const count = async (...folder: string[]) => (await readdir(join(store.directory, ...folder))).length;
    vi.useFakeTimers({ toFake: ["Date"] });
    onTestFinished(() => {
      vi.useRealTimers();
    });
    const models = await count("blobs", "sha256");
    for (let at = 1; at <= 3 * HISTORY_LIMIT; at++) {
      vi.setSystemTime(Date.now() + 1_000);
      await weigh(at);
      expect(await count(".polyhead", "changes")).toBeLessThan(64);
      if (at % 50 === 0) expect(await other.routes()).toEqual(await store.routes());
    }
    // Their manifest, their document and five pieces of the history; and what was sealed 64 seconds ago.
    expect((await count("blobs", "sha256")) - models).toBeLessThanOrEqual(2 * 2 + 6);
    const { history, generation } = await (await Store.open(store.directory)).routes();
    expect([history.length, generation]).toEqual([HISTORY_LIMIT, 3 * HISTORY_LIMIT]);
    expect(history.map(({ after }) => after)).toEqual(
      Array.from({ length: HISTORY_LIMIT }, (_, at) => 2 * HISTORY_LIMIT + at + 1),
    );
    expect((await store.verify()).findings).toEqual([]);
  });

  it("are read well while another process seals them again and again", async () => {
    const { store, first } = await pair();
    const other = await Store.open(store.directory);
    let writing = true;
    const written = (async () => {
      for (let weight = 1; weight <= 200; weight++)
        await store.change((routes) => routes.set("a", { targets: [{ revision: first, weight }] }), author);
      writing = false;
    })();
    let last = 0;
    while (writing) {
      const { generation, routes } = await other.routes();
      expect(generation).toBeGreaterThanOrEqual(last);
      if (generation > 0) expect(routes.get("a")?.targets[0]?.weight).toBe(generation);
      last = generation;
    }
    await written;
    expect((await other.routes()).generation).toBe(200);
  });

  it("have the files of sealed changes for those to come, which count for nothing until then", async () => {
    const { store, first } = await pair();
    const weigh = (weight: number) =>
      store.change((routes) => routes.set("a", { targets: [{ revision: first, weight }] }), author);
    const changes = join(store.directory, ".polyhead", "changes");
    const generations = async () =>
      (await readdir(changes)).map((name) => Number.parseInt(name, 10)).sort((a, b) => a - b);
    const from = (first: number, last: number) =>
      Array.from({ length: last - first + 1 }, (_, at) => first + at);
    for (let at = 1; at <= 65; at++) await weigh(at);
    expect(await generations()).toEqual(from(2, 64));
    const [name = ""] = await readdir(changes);
    await writeFile(join(changes, name), "of no concern");
    const other = await Store.open(store.directory);
    expect(await other.routes()).toEqual(await store.routes());
    expect((await store.verify()).findings).toEqual([]);
    const next = await other.change((routes) => routes.delete("a"), author);
    expect([next.generation, next.history.length]).toEqual([66, 66]);
    expect(await generations()).toEqual([...from(3, 64), 66]);
    for (let at = 67; at <= 129; at++) await weigh(at);
    expect(await generations()).toEqual(from(66, 128));
    const { history } = await (await Store.open(store.directory)).routes();
    expect(history).toEqual((await store.routes()).history);
    expect(history).toHaveLength(129);
  });

  it("leave files alone that a copy of the folder shares", async () => {
    const { store, first } = await pair();
    const weigh = (weight: number) =>
      store.change((routes) => routes.set("a", { targets: [{ revision: first, weight }] }), author);
    for (let at = 1; at <= 10; at++) await weigh(at);
    const before = await store.routes();
    const copy = await temporaryFolder();
    await linkFolder(store.directory, copy);
    for (let at = 11; at <= 130; at++) await weigh(at);
    expect(await (await Store.open(copy)).routes()).toEqual(before);
    expect((await (await Store.open(copy)).verify()).findings).toEqual([]);
    expect(await (await Store.open(store.directory)).routes()).toEqual(await store.routes());
  });

  it("that changed many at once are sealed sooner, and forgotten sooner", async () => {
    const { store, first } = await pair();
    const all = (weight: number) =>
      store.change((routes) => {
        for (let at = 0; at < 600; at++)
          routes.set(`route-${at}`, { targets: [{ revision: first, weight }] });
      }, author);
    for (let weight = 1; weight <= 9; weight++) await all(weight);
    expect((await readdir(join(store.directory, ".polyhead", "changes"))).length).toBeLessThanOrEqual(1);
    const { history } = await store.routes();
    expect(history.map(({ after }) => after)).toEqual([4, 5, 6, 7, 8, 9]); // 6 x 600 routes, and not 7 x 600
    expect(await (await Store.open(store.directory)).routes()).toEqual(await store.routes());
  });

  it("lose no change when several objects change them at once", async () => {
    const { store, first } = await pair();
    const other = await Store.open(store.directory);
    const changes = Array.from({ length: 20 }, (_, at) =>
      (at % 2 ? store : other).change((routes) => routes.set(`route-${at}`, routeTo(first)), author),
    );
    const documents = await Promise.all(changes);
    expect(documents.map(({ generation }) => generation).sort((a, b) => a - b)).toEqual(
      Array.from({ length: 20 }, (_, at) => at + 1),
    );
    expect((await store.routes()).routes.size).toBe(20);
  });
});

describe("watching", () => {
  it("tells of changes by others, and of none after it has ended", async () => {
    const { store, first } = await pair();
    const other = await Store.open(store.directory);
    const heard: string[] = [];
    let tell = (_: string) => {};
    const told = () =>
      new Promise<string>((resolve) => {
        tell = resolve;
      });
    const end = await store.watch((version) => {
      heard.push(version);
      tell(version);
    }, 5);
    // The first change of a store is in its index, the second and the third are beside it.
    for (let weight = 1; weight <= 3; weight++) {
      const next = told();
      await store.change((routes) => routes.set("own", { targets: [{ revision: first, weight }] }), author);
      await other.change((routes) => routes.set("a", { targets: [{ revision: first, weight }] }), author);
      expect(await next).toBe(await store.version());
    }
    end();
    await other.change((routes) => routes.delete("a"), author);
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(heard).toHaveLength(3);
  });
});
