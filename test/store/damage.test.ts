/** Stores that were damaged or made to harm: found by verify, refused by typed errors, mended where that is possible. */
import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rename, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { ERROR_CATALOGUE, type ErrorCode, PolyheadError } from "../../src/base/errors.js";
import { revisionOf } from "../../src/onnx/revision.js";
import { routeTo, Store } from "../../src/store/index.js";
import { addition, author, json, MUCH, refuses, temporaryFolder } from "./samples.js";

/** A store with two models, one of them with its weights in a blob of their own, and routes that were changed twice. */
async function sample() {
  const store = await Store.open(await temporaryFolder());
  const models = [addition(1, MUCH), addition(2)] as const;
  const [big, small] = [await store.put(models[0]), await store.put(models[1])];
  await store.change((routes) => routes.set("sum", routeTo(small)), author);
  await store.change((routes) => routes.set("second", routeTo(small)), author);
  return { store, models, big, small, folder: store.directory };
}

const blobPath = (folder: string, digest: string) =>
  join(folder, "blobs", "sha256", digest.replace("sha256:", ""));

/** The manifests of a store: the big model's, the small one's, the routes'. */
async function manifests(folder: string) {
  const { manifests } = await json(folder, "index.json");
  return Promise.all(
    manifests.map(async ({ digest }: { digest: string }) => ({
      path: blobPath(folder, digest),
      content: await json(blobPath(folder, digest)),
    })),
  );
}

/** The path of a layer of the routes: they themselves, or a piece of their history. */
async function routesLayer(folder: string, at: number): Promise<string> {
  const [, , { content }] = await manifests(folder);
  return blobPath(folder, content.layers[at].digest);
}

/** The path of the one change that is not in the index yet. */
async function changeOf(folder: string): Promise<string> {
  const [name = ""] = await readdir(join(folder, ".polyhead", "changes"));
  return join(folder, ".polyhead", "changes", name);
}

async function flipLastByte(path: string) {
  const bytes = await readFile(path);
  bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
  await writeFile(path, bytes);
}

const kinds = async (store: Store) => (await store.verify()).findings.map(({ kind }) => kind);

describe("a damaged file", () => {
  it.each<[string, (path: string) => Promise<void>]>([
    ["with a changed byte", flipLastByte],
    ["cut short", (path) => truncate(path, 7)],
    ["missing", (path) => rm(path)],
    [
      "replaced by a folder",
      async (path) => {
        await rm(path);
        await mkdir(path);
      },
    ],
  ])(
    "of a model, %s: is found, leaves the rest in use, and is mended by putting the model again",
    async (_, harm) => {
      const { store, models, big, small, folder } = await sample();
      const [{ content }] = await manifests(folder);
      for (const { digest } of content.layers) {
        const path = blobPath(folder, digest);
        await harm(path);
        const { findings } = await store.verify();
        expect(findings).toEqual([{ kind: "blob", subject: digest, message: expect.any(String) }]);
        await refuses(store.model(big), "STORE_DAMAGED");
        expect(await revisionOf(await store.model(small))).toBe(small);
        await store.change((routes) => routes.set(`after-${digest.slice(-4)}`, routeTo(small)), author);
        if (
          (await readdir(join(folder, "blobs", "sha256"), { withFileTypes: true })).some((each) =>
            each.isDirectory(),
          )
        )
          await rm(path, { recursive: true });
        expect(await store.put(models[0])).toBe(big);
        expect(await kinds(store)).toEqual([]);
        expect(await revisionOf(await store.model(big))).toBe(big);
      }
    },
  );

  it("of a manifest leaves the other models in use, stops cleaning, and is mended by putting the model again", async () => {
    const { store, models, big, small, folder } = await sample();
    const [{ path }] = await manifests(folder);
    await flipLastByte(path);
    const reopened = await Store.open(folder);
    expect((await reopened.models()).map(({ revision }) => revision)).toEqual([small]);
    await refuses(reopened.model(big), "STORE_DAMAGED");
    await refuses(store.gc({ grace: 0 }), "STORE_DAMAGED");
    expect(await kinds(store)).toEqual(["blob"]);
    await store.put(models[0]);
    expect(await kinds(store)).toEqual([]);
    expect(await revisionOf(await store.model(big))).toBe(big);
  });

  it.each<[string, (folder: string) => Promise<string>, (path: string) => Promise<void>, ErrorCode?]>([
    ["the document of the routes", (folder) => routesLayer(folder, 0), flipLastByte],
    ["the document of the routes, missing,", (folder) => routesLayer(folder, 0), (path) => rm(path)],
    ["a piece of their history", (folder) => routesLayer(folder, 1), flipLastByte],
    ["a piece of their history, cut short,", (folder) => routesLayer(folder, 1), (path) => truncate(path, 7)],
    ["a piece of their history, missing,", (folder) => routesLayer(folder, 1), (path) => rm(path)],
    ["a change of them", changeOf, flipLastByte],
    ["a change of them, empty,", changeOf, (path) => truncate(path, 0)],
    ["a change of them, cut short,", changeOf, (path) => truncate(path, 7)],
    ["a change of them that is huge", changeOf, (path) => truncate(path, 2 ** 40), "LIMIT_EXCEEDED"],
    ["a change of them, missing before another,", changeOf, (path) => rm(path)],
  ])("that is %s is found and never taken for none", async (_, of, harm, code = "STORE_DAMAGED") => {
    const { store, small, folder } = await sample();
    const path = await of(folder);
    await store.change((routes) => routes.set("third", routeTo(small)), author);
    await harm(path);
    const other = await Store.open(folder); // `store` knows what it has read
    await refuses(other.routes(), code);
    await refuses(
      other.change((routes) => routes.clear(), author),
      code,
    );
    expect(await kinds(store)).toContain("routes");
    expect(await revisionOf(await store.model(small))).toBe(small);
  });

  it("of the routes may be one change twice", async () => {
    const { store, folder } = await sample();
    const path = await changeOf(folder);
    const text = (await readFile(path)).toString().replace('"to see"', '"to be"');
    const hex = createHash("sha256").update(text).digest("hex");
    await writeFile(join(folder, ".polyhead", "changes", `2.${hex}`), text);
    await refuses((await Store.open(folder)).routes(), "STORE_DAMAGED");
    expect(await kinds(store)).toContain("routes");
  });

  it("may be a model that routes or history need and the index has lost", async () => {
    const { store, big, folder } = await sample();
    await store.change((routes) => {
      routes.set("sum", routeTo(big));
      routes.delete("second");
    }, author);
    const index = await json(folder, "index.json");
    await writeFile(
      join(folder, "index.json"),
      JSON.stringify({ ...index, manifests: [index.manifests.at(-1)] }),
    );
    expect(await kinds(store)).toEqual(["routes", "history"]);
  });
});

describe("an index", () => {
  const digest = `sha256:${"0".repeat(64)}`;
  const entry = { mediaType: "application/vnd.oci.image.manifest.v1+json", digest, size: 2 };
  const of = (...manifests: unknown[]) => JSON.stringify({ schemaVersion: 2, manifests });

  it.each<[string, string]>([
    ["that is empty", ""],
    ["that is cut short", '{"schemaVersion":2,"manif'],
    ["that is a list", "[]"],
    ["that is deep", "[".repeat(1_000_000)],
    ["of another version", '{"schemaVersion":1,"manifests":[]}'],
    ["without manifests", '{"schemaVersion":2}'],
    ["with a digest that is a path", of({ ...entry, digest: "sha256:../../../etc/passwd" })],
    ["with a digest of another algorithm", of({ ...entry, digest: `sha512:${"0".repeat(128)}` })],
    ["with a digest that is a number", of({ ...entry, digest: 7 })],
    ["with a negative size", of({ ...entry, size: -1 })],
    ["with a size that is a text", of({ ...entry, size: "2" })],
    ["with annotations that are no texts", of({ ...entry, annotations: { a: {} } })],
    ["with an entry that is nothing", of(null)],
    ["that is not UTF-8", "\ud800"],
  ])("%s is refused and found", async (_, text) => {
    const { store, folder } = await sample();
    const bytes = text === "\ud800" ? Buffer.from([0x7b, 0xff, 0x7d]) : text;
    await writeFile(join(folder, "index.json"), bytes);
    await refuses(store.models(), "STORE_DAMAGED");
    await refuses(
      store.change((routes) => routes.clear(), author),
      "STORE_DAMAGED",
    );
    await refuses(store.gc({ grace: 0 }), "STORE_DAMAGED");
    expect(await kinds(store)).toEqual(["index"]);
  });

  it("that is huge is not read", async () => {
    const { store, folder } = await sample();
    await truncate(join(folder, "index.json"), 2 ** 40);
    await refuses(store.models(), "LIMIT_EXCEEDED");
  });

  it("that is missing is not taken for an empty one", async () => {
    const { store, folder } = await sample();
    await rm(join(folder, "index.json"));
    await refuses(store.models(), "STORE_DAMAGED");
    await refuses((await Store.open(folder)).models(), "STORE_DAMAGED");
  });

  it("with a blob that is said to be huge is refused", async () => {
    const { folder } = await sample();
    const index = await json(folder, "index.json");
    const routes = { ...index.manifests.at(-1), size: 2 ** 50 };
    await writeFile(join(folder, "index.json"), JSON.stringify({ ...index, manifests: [routes] }));
    await refuses((await Store.open(folder)).routes(), "LIMIT_EXCEEDED");
  });

  it("with two documents of routes is refused", async () => {
    const { store, folder } = await sample();
    const index = await json(folder, "index.json");
    const { digest } = index.manifests.at(-1);
    const text = (await readFile(blobPath(folder, digest))).toString();
    const other = `${text} `;
    const otherDigest = `sha256:${createHash("sha256").update(other).digest("hex")}`;
    await writeFile(blobPath(folder, otherDigest), other);
    index.manifests.push({ ...index.manifests.at(-1), digest: otherDigest, size: other.length });
    await writeFile(join(folder, "index.json"), JSON.stringify(index));
    await refuses(store.routes(), "STORE_DAMAGED");
  });
});

describe("a link out of the store", () => {
  it("is refused where a file should be", async () => {
    const { store, big, folder } = await sample();
    const outside = join(await temporaryFolder(), "outside");
    const [{ content }] = await manifests(folder);
    for (const path of [blobPath(folder, content.layers[1].digest), join(folder, "index.json")]) {
      await rename(path, outside);
      await symlink(outside, path);
      await refuses(store.model(big), "STORE_DAMAGED");
      expect(await kinds(store)).not.toEqual([]);
      await rm(path);
      await rename(outside, path);
    }
  });

  it.each([
    "blobs",
    join("blobs", "sha256"),
    ".polyhead",
    join(".polyhead", "changes"),
    join(".polyhead", "claims"),
    join(".polyhead", "unfinished"),
  ])("is refused where the folder %s should be", async (name) => {
    const { folder } = await sample();
    const outside = await temporaryFolder();
    await mkdir(join(folder, name), { recursive: true });
    await rename(join(folder, name), join(outside, "moved"));
    await symlink(join(outside, "moved"), join(folder, name));
    await refuses(Store.open(folder), "PATH_REFUSED");
  });
});

describe("documents with the wrong content", () => {
  /** Puts a document in the place of another, with the digests that lead to it made good. */
  async function replaced(
    folder: string,
    at: number,
    change: (manifest: Record<string, unknown>) => unknown,
  ) {
    const write = async (value: unknown) => {
      const bytes = Buffer.from(typeof value === "string" ? value : JSON.stringify(value));
      const digest = `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
      await writeFile(blobPath(folder, digest), bytes);
      return { digest, size: bytes.length };
    };
    const index = await json(folder, "index.json");
    const manifest = await json(blobPath(folder, index.manifests[at].digest));
    const next = change(manifest);
    const document =
      typeof next === "object" && next !== null && "document" in next ? next.document : undefined;
    const content = document
      ? { ...manifest, layers: [{ ...manifest.layers[0], ...(await write(document)) }] }
      : next;
    Object.assign(index.manifests[at], await write(content));
    await writeFile(join(folder, "index.json"), JSON.stringify(index));
  }

  it.each<[string, (manifest: Record<string, unknown>) => unknown]>([
    ["no manifest", () => "[]"],
    ["no layers", (manifest) => ({ ...manifest, layers: [] })],
    ["layers that are a text", (manifest) => ({ ...manifest, layers: "all" })],
    [
      "a revision that is a path",
      (manifest) => ({ ...manifest, annotations: { "polyhead.revision": "../x" } }),
    ],
    ["taps that are none", (manifest) => ({ ...manifest, annotations: { "polyhead.taps": "[1]" } })],
    [
      "the revision of another model",
      (manifest) => ({ ...manifest, annotations: { "polyhead.revision": "1".repeat(64) } }),
    ],
  ])("of a model, %s: found, and the others stay in use", async (_, change) => {
    const { store, small, folder } = await sample();
    await replaced(folder, 0, change);
    expect(await kinds(store)).not.toEqual([]);
    const isListed = (await store.models()).some(({ revision }) => revision === "1".repeat(64));
    await refuses(store.model("1".repeat(64)), isListed ? "STORE_DAMAGED" : "NOT_FOUND");
    expect(await revisionOf(await store.model(small))).toBe(small);
  });

  const route = { name: "a", targets: [{ revision: "1".repeat(64), weight: 1 }] };
  const good = { schemaVersion: 1, generation: 1, routes: [route], history: [] };
  it.each<[string, unknown, "STORE_DAMAGED" | "STORE_REFUSED"]>([
    ["no version", { ...good, schemaVersion: undefined }, "STORE_DAMAGED"],
    ["a newer version", { ...good, schemaVersion: 3 }, "STORE_REFUSED"],
    ["half a generation", { ...good, generation: 0.5 }, "STORE_DAMAGED"],
    ["one route twice", { ...good, routes: [route, route] }, "STORE_DAMAGED"],
    ["a route of a bad name", { ...good, routes: [{ ...route, name: "../a" }] }, "STORE_DAMAGED"],
    ["a route without a target", { ...good, routes: [{ ...route, targets: [] }] }, "STORE_DAMAGED"],
    ["a history that is none", { ...good, history: [{ at: "today" }] }, "STORE_DAMAGED"],
    ["no history", { ...good, schemaVersion: 2, history: undefined }, "STORE_DAMAGED"],
    ["a history without end", { ...good, history: Array(300).fill({}) }, "STORE_DAMAGED"],
  ])("of the routes, %s: refused and found", async (_, document, code) => {
    const { store, folder } = await sample();
    await replaced(folder, 2, () => ({ document }));
    await refuses(store.routes(), code);
    expect(await kinds(store)).toContain("routes");
  });
});

describe("any one byte of a store", () => {
  it("may be wrong: every call ends well or by a typed error, and no other model is read", async () => {
    const { folder, big, small } = await sample();
    const names = ["index.json", "oci-layout"];
    for (const within of [join("blobs", "sha256"), join(".polyhead", "changes")])
      for (const name of await readdir(join(folder, within))) names.push(join(within, name));
    for (const name of names) {
      const sound = await readFile(join(folder, name));
      for (let at = 0; at < sound.length; at += Math.ceil(sound.length / 12)) {
        const bytes = Buffer.from(sound);
        bytes[at] = (bytes[at] ?? 0) ^ 0x15;
        await writeFile(join(folder, name), bytes);
        const failures = await Store.open(folder, { readOnly: true }).then(
          async (store) => {
            const calls = [
              store.models(),
              store.routes(),
              store.verify(),
              store.model(big),
              store.model(small),
            ];
            const results = await Promise.allSettled(calls);
            const [, , , first, second] = results;
            if (first?.status === "fulfilled") expect(await revisionOf(await store.model(big))).toBe(big);
            if (second?.status === "fulfilled")
              expect(await revisionOf(await store.model(small))).toBe(small);
            return results.flatMap((each) => (each.status === "rejected" ? [each.reason] : []));
          },
          (thrown) => [thrown],
        );
        for (const failure of failures) {
          expect(failure).toBeInstanceOf(PolyheadError);
          expect(Object.keys(ERROR_CATALOGUE)).toContain(failure.code);
          expect(failure.code).not.toBe("INTERNAL");
        }
      }
      await writeFile(join(folder, name), sound);
    }
  });
});
