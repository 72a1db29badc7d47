/** A store as version 0.1.0 wrote it, with all of the history in the document of routes: `version-1` beside this file. */
import { cp, readdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { routeTo, Store } from "../../src/store/index.js";
import { author, json, refuses, temporaryFolder } from "./samples.js";

const OLD = fileURLToPath(new URL("version-1", import.meta.url));
const first = "73e563a2f033ca7eac302542d86342898257388ede742bc0307b99917c22a88b";
const second = "0a95225e5513efd1fd064c09b24a5c1bd2e02f6de11f5635cf7cbf1452a0d5da";

const live = { ...routeTo(first), shadows: [second] };
const canary = {
  targets: [
    { revision: second, weight: 3 },
    { revision: first, weight: 1 },
  ],
  stickyKey: "user",
  limits: { maxErrorRate: 0.1, minRequests: 10 },
};
/** The routes of each change, as they were made. */
const history = [
  [
    { name: "sum", from: null, to: routeTo(first) },
    { name: "other", from: null, to: routeTo(second) },
  ],
  [{ name: "sum", from: routeTo(first), to: canary }],
  [
    { name: "sum", from: canary, to: live },
    { name: "other", from: routeTo(second), to: null },
  ],
];

describe("an old store", () => {
  it("is read as it is, without being written to", async () => {
    const store = await Store.open(OLD, { readOnly: true });
    const document = await store.routes();
    expect([document.generation, document.routes]).toEqual([3, new Map([["sum", live]])]);
    expect(document.history.map(({ routes }) => routes)).toEqual(history);
    expect(document.history.map(({ by, reason }) => [by, reason])).toEqual([
      ["ada", "begin"],
      ["ada", "try"],
      ["ada", "back"],
    ]);
    expect((await store.verify()).findings).toEqual([]);
    expect(await readdir(OLD)).toEqual(["blobs", "index.json", "oci-layout"]);
  });

  it("takes the new form with its first change, and loses nothing", async () => {
    const folder = join(await temporaryFolder(), "store");
    await cp(OLD, folder, { recursive: true });
    const store = await Store.open(folder);
    await refuses(store.remove(second), "IN_USE");
    const before = await store.routes();
    for (let weight = 2; weight <= 4; weight++)
      await store.change((routes) => routes.set("new", { targets: [{ revision: second, weight }] }), author);
    const after = await (await Store.open(folder)).routes();
    expect(after).toEqual(await store.routes());
    expect(after.history.slice(0, 3)).toEqual(before.history);
    expect(after.history.map((change) => change.after)).toEqual([1, 2, 3, 4, 5, 6]);
    expect([...after.routes.keys()]).toEqual(["sum", "new"]);
    // What an older version would read must make it refuse the store, not take it for what it was.
    const { manifests } = await json(folder, "index.json");
    const blob = (digest: string) => json(folder, "blobs", "sha256", digest.replace("sha256:", ""));
    const [document] = (await blob(manifests.at(-1).digest)).layers;
    expect((await blob(document.digest)).schemaVersion).toBe(2);
    expect((await store.verify()).findings).toEqual([]);
    await store.gc({ grace: 0 });
    expect(await store.verify()).toMatchObject({ findings: [], garbage: 0 });
  });
});
