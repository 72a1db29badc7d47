/** Models in a store: kept and read back, as documents that other tools read, refused where they are not to be had. */
import { createHash } from "node:crypto";
import { readdir, readFile, rm, stat, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { describe, expect, it } from "vitest";
import { loadModel, saveModel } from "../../src/files/disk.js";
import { TensorProto_DataLocation as Location } from "../../src/onnx/generated/onnx_pb.js";
import { revisionOf as engineRevision } from "../../src/onnx/revision.js";
import { modelBytes } from "../../src/onnx/write.js";
import { routeTo, Store } from "../../src/store/index.js";
import { fixturesDir, hasFixtures } from "../fixtures.js";
import { addition, author, json, MUCH, refuses, temporaryFolder } from "./samples.js";

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
const blob = (store: Store, digest: string) =>
  join(store.directory, "blobs", "sha256", digest.replace("sha256:", ""));

describe("models", () => {
  it.each([
    ["small", 4],
    ["with much weight", MUCH],
  ])("%s: are read back equal in every byte, under the engine's revision", async (_, length) => {
    const folder = await temporaryFolder();
    const model = addition(1, length, { role: "head", task: "sum" });
    const revision = await (await Store.open(folder)).put(model);
    expect(revision).toBe(await engineRevision(model));
    const again = await (await Store.open(folder)).model(revision);
    expect(sha256(modelBytes(again))).toBe(revision);
    expect(await engineRevision(again)).toBe(revision);
  });

  it("have one revision whichever way their file keeps the weights", async () => {
    const folder = await temporaryFolder();
    const model = addition(2, MUCH);
    await saveModel(join(folder, "inside.onnx"), model, { external: false });
    await saveModel(join(folder, "beside.onnx"), model, { external: true });
    const store = await Store.open(join(folder, "store"));
    const revision = await store.putFile(join(folder, "inside.onnx"));
    expect(await store.putFile(join(folder, "beside.onnx"))).toBe(revision);
    expect((await store.models()).map(({ title }) => title)).toEqual(["inside.onnx"]);
  });

  it("keep their revision when a weight says aloud that it lies in the file", async () => {
    const store = await Store.open(await temporaryFolder());
    const model = addition(3, MUCH);
    for (const each of model.graph.initializer) each.dataLocation = Location.DEFAULT;
    const revision = await store.put(model);
    expect(revision).toBe(await engineRevision(model));
    expect(await engineRevision(await store.model(revision))).toBe(revision);
  });

  it.each([4, MUCH])("of %i numbers run from the path that the store gives", async (length) => {
    const store = await Store.open(await temporaryFolder());
    const path = await store.pathOf(await store.put(addition(0.5, length)));
    const session = await InferenceSession.create(path ?? "");
    const { y } = await session.run({ x: new Tensor("float32", new Float32Array(length).fill(2), [length]) });
    expect(Array.from((y?.data ?? []) as Float32Array).slice(0, 3)).toEqual([2.5, 3.5, 4.5]);
    await session.release();
  });

  it("with equal weights share them, and put again take no more room", async () => {
    const store = await Store.open(await temporaryFolder());
    const revision = await store.put(addition(4, MUCH, { task: "one" }));
    await store.put(addition(4, MUCH, { task: "other" }));
    const big = async () => {
      const folder = join(store.directory, "blobs", "sha256");
      const sizes = (await readdir(folder)).map(async (name) => (await stat(join(folder, name))).size);
      return (await Promise.all(sizes)).filter((size) => size > 2 ** 20).length;
    };
    expect(await big()).toBe(1);
    const before = await store.version();
    expect(await store.put(addition(4, MUCH, { task: "one" }))).toBe(revision);
    expect(await store.version()).toBe(before);
  });

  it("tell what they are without being read", async () => {
    const store = await Store.open(await temporaryFolder());
    const tap = { name: "pool", dtype: "float32", shape: ["batch", 8], identity: "ab".repeat(32) } as const;
    const metadata = { role: "head", task: "classification", taps: [tap], labels: ["cat", "dog"] } as const;
    const revision = await store.put(addition(5, 4, metadata), { title: "pets.onnx" });
    expect(await store.models()).toMatchObject([
      { revision, title: "pets.onnx", role: "head", task: "classification", taps: [tap], labels: 2 },
    ]);
    await refuses(store.put(addition(6), { title: "../pets.onnx" }), "INVALID_ARGUMENT");
  });

  it("are not found when they are not there, or no longer", async () => {
    const store = await Store.open(await temporaryFolder());
    await refuses(store.model("0".repeat(64)), "NOT_FOUND");
    await refuses(store.model("../../etc/passwd"), "NOT_FOUND");
    await refuses(store.remove("0".repeat(64)), "NOT_FOUND");
    const revision = await store.put(addition(7));
    await store.remove(revision);
    await refuses(store.model(revision), "NOT_FOUND");
    await refuses(store.pathOf(revision), "NOT_FOUND");
    expect(await store.models()).toEqual([]);
  });

  it("cannot be removed while a route or a remembered change names them", async () => {
    const store = await Store.open(await temporaryFolder());
    const [first, second, third] = [
      await store.put(addition(8)),
      await store.put(addition(9)),
      await store.put(addition(10)),
    ];
    const shadowed = { ...routeTo(first), shadows: [second] };
    await store.change((routes) => routes.set("sum", shadowed), author);
    await refuses(store.remove(first), "IN_USE");
    await refuses(store.remove(second), "IN_USE");
    await store.change((routes) => routes.delete("sum"), author);
    await refuses(store.remove(first), "IN_USE");
    await store.remove(third);
    expect((await store.models()).map(({ revision }) => revision)).toEqual([first, second]);
  });

  it.skipIf(!hasFixtures)("of the real kind are kept and read back", async () => {
    const store = await Store.open(await temporaryFolder());
    for (const name of ["resnet_basic", "mobilenet_v2", "vit"]) {
      const path = join(fixturesDir, "zoo", `${name}.onnx`);
      const revision = await store.putFile(path);
      expect(revision).toBe(await engineRevision(await loadModel(path)));
      expect(await engineRevision(await store.model(revision))).toBe(revision);
    }
    expect((await store.verify()).findings).toEqual([]);
  });
});

describe("the folder", () => {
  it("is an OCI image layout with artifacts, as image-spec 1.1 has them", async () => {
    const store = await Store.open(await temporaryFolder());
    const revision = await store.put(addition(11, MUCH, { role: "backbone" }), { title: "sum.onnx" });
    await store.change((routes) => routes.set("sum", routeTo(revision)), author);
    expect(await json(store.directory, "oci-layout")).toEqual({ imageLayoutVersion: "1.0.0" });
    const index = await json(store.directory, "index.json");
    expect(index).toMatchObject({
      schemaVersion: 2,
      mediaType: "application/vnd.oci.image.index.v1+json",
      manifests: [
        {
          mediaType: "application/vnd.oci.image.manifest.v1+json",
          artifactType: "application/vnd.polyhead.model.v1",
          annotations: { "org.opencontainers.image.ref.name": revision },
        },
        { artifactType: "application/vnd.polyhead.routes.v1" },
      ],
    });
    for (const { digest, size } of index.manifests) {
      const bytes = await readFile(blob(store, digest));
      expect([`sha256:${sha256(bytes)}`, bytes.length]).toEqual([digest, size]);
      const manifest = JSON.parse(bytes.toString());
      // The digest of `{}` is a constant of the specification.
      expect(manifest.config).toEqual({
        mediaType: "application/vnd.oci.empty.v1+json",
        digest: "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        size: 2,
      });
      for (const each of [manifest.config, ...manifest.layers]) {
        const content = await readFile(blob(store, each.digest));
        expect([`sha256:${sha256(content)}`, content.length]).toEqual([each.digest, each.size]);
      }
    }
  });

  it("gives back a model whose layers were fetched into files of their titles", async () => {
    const store = await Store.open(await temporaryFolder());
    const model = addition(12, MUCH);
    await store.put(model, { title: "sum.onnx" });
    const [entry] = (await json(store.directory, "index.json")).manifests;
    const folder = await temporaryFolder();
    for (const { digest, annotations } of (await json(blob(store, entry.digest))).layers) {
      await writeFile(
        join(folder, annotations["org.opencontainers.image.title"]),
        await readFile(blob(store, digest)),
      );
    }
    expect(await engineRevision(await loadModel(join(folder, "sum.onnx")))).toBe(await engineRevision(model));
  });

  it("may hold artifacts of other tools, which stay, and models that they brought", async () => {
    const store = await Store.open(await temporaryFolder());
    const write = async (bytes: Uint8Array) => {
      const digest = `sha256:${sha256(bytes)}`;
      await writeFile(blob(store, digest), bytes);
      await utimes(blob(store, digest), 0, 0);
      return { digest, size: bytes.length };
    };
    const file = modelBytes(addition(13));
    const config = { mediaType: "application/vnd.oci.empty.v1+json", ...(await write(Buffer.from("{}"))) };
    const manifestOf = async (artifactType: string, bytes: Uint8Array) => ({
      mediaType: "application/vnd.oci.image.manifest.v1+json",
      ...(await write(
        Buffer.from(
          JSON.stringify({
            schemaVersion: 2,
            artifactType,
            config,
            layers: [{ mediaType: "application/octet-stream", ...(await write(bytes)) }],
          }),
        ),
      )),
    });
    const theirs = { ...(await manifestOf("text/example", Buffer.from("theirs"))), platform: { os: "any" } };
    const model = await manifestOf("application/vnd.polyhead.model.v1", file);
    await writeFile(
      join(store.directory, "index.json"),
      JSON.stringify({ schemaVersion: 2, manifests: [theirs, model], annotations: { kept: "yes" } }),
    );
    const revision = sha256(file);
    expect(modelBytes(await store.model(revision))).toEqual(file);
    await store.change((routes) => routes.set("sum", routeTo(revision)), author);
    await store.gc({ grace: 0 });
    const index = await json(store.directory, "index.json");
    expect(index).toMatchObject({ annotations: { kept: "yes" }, manifests: [theirs, model, {}] });
    expect((await store.verify()).findings).toEqual([]);
  });
});

describe("garbage collection", () => {
  it("frees what a removed model took, and nothing that is needed", async () => {
    const store = await Store.open(await temporaryFolder());
    const kept = await store.put(addition(14, MUCH));
    const gone = await store.put(addition(15, MUCH));
    await store.remove(gone);
    expect(await store.gc()).toEqual({ blobs: 0, unfinished: 0, bytes: 0 });
    const { garbage } = await store.verify();
    expect(garbage).toBeGreaterThan(4 * MUCH);
    expect(await store.gc({ grace: 0 })).toEqual({ blobs: 3, unfinished: 0, bytes: garbage });
    expect(await store.verify()).toMatchObject({ findings: [], models: 1, garbage: 0 });
    expect(await engineRevision(await store.model(kept))).toBe(kept);
  });

  it("frees files that were never finished", async () => {
    const store = await Store.open(await temporaryFolder());
    await store.put(addition(16));
    await writeFile(join(store.directory, ".polyhead", "unfinished", "left-over"), "half a mod");
    expect(await store.gc({ grace: 0 })).toMatchObject({ unfinished: 1, bytes: 10 });
  });

  it("never leaves a model that was put meanwhile without its files", async () => {
    const folder = await temporaryFolder();
    const [store, cleaner] = [await Store.open(folder), await Store.open(folder)];
    let ended = false;
    const cleaning = (async () => {
      while (!ended) await cleaner.gc({ grace: 0 });
    })();
    const results = await Promise.allSettled(
      Array.from({ length: 30 }, (_, at) => store.put(addition(100 + at))),
    );
    ended = true;
    await cleaning;
    for (const result of results) {
      // Without grace an unfinished file may be swept away; then the put fails and says so.
      if (result.status === "fulfilled") await store.model(result.value);
      else expect(["FILE_NOT_WRITTEN", "PROOF_FAILED"]).toContain(result.reason.code);
    }
    expect((await store.verify()).findings).toEqual([]);
  });
});

describe("opening", () => {
  it("makes a store of a missing or an empty folder, and finds it again", async () => {
    const folder = await temporaryFolder();
    for (const path of [folder, join(folder, "inner", "most")]) {
      const revision = await (await Store.open(path)).put(addition(17));
      expect((await (await Store.open(path, { readOnly: true })).models())[0]?.revision).toBe(revision);
    }
  });

  it("refuses a folder that is something else, and leaves it as it is", async () => {
    const folder = await temporaryFolder();
    await writeFile(join(folder, "letter.txt"), "dear");
    await refuses(Store.open(folder), "STORE_REFUSED");
    await refuses(Store.open(join(folder, "letter.txt")), "STORE_REFUSED");
    expect(await readdir(folder)).toEqual(["letter.txt"]);
    await refuses(Store.open(join(folder, "letter.txt", "inside")), "STORE_REFUSED");
    await refuses(Store.open("/proc/none/store"), "FILE_NOT_WRITTEN");
    await writeFile(join(folder, "oci-layout"), '{"imageLayoutVersion":"9.0.0"}');
    await refuses(Store.open(folder), "STORE_REFUSED");
  });

  it("for reading makes nothing and changes nothing", async () => {
    const folder = await temporaryFolder();
    await refuses(Store.open(join(folder, "none"), { readOnly: true }), "FILE_NOT_FOUND");
    expect(await readdir(folder)).toEqual([]);
    await Store.open(folder);
    const store = await Store.open(folder, { readOnly: true });
    await refuses(store.put(addition(18)), "INVALID_ARGUMENT");
    await refuses(store.gc(), "INVALID_ARGUMENT");
    await refuses(
      store.change(() => {}, author),
      "INVALID_ARGUMENT",
    );
  });

  it("goes on where a killed process stopped making a store", async () => {
    const folder = await temporaryFolder();
    const revision = await (await Store.open(folder)).put(addition(19));
    await rm(join(folder, "oci-layout"));
    expect((await (await Store.open(folder)).models())[0]?.revision).toBe(revision);
  });
});
