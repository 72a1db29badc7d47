/** `tune --data` as people run it: killed and gone on with, refused, and live in a server that is asked all the while. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadModel, saveModel } from "../../src/files/disk.js";
import { readMetadata } from "../../src/onnx/metadata.js";
import { revisionOf } from "../../src/onnx/revision.js";
import { randomBackbone } from "../teach/photos.js";
import { writeStripes } from "../tune/stripes.js";
import { killed, polyhead } from "./command.js";

const COMMAND = fileURLToPath(new URL("../../bin/polyhead.js", import.meta.url));
const PATIENCE = 120_000;

let folder: string;
let backbone: string;
let photos: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tune-images-"));
  backbone = join(folder, "backbone.onnx");
  photos = join(folder, "photos");
  await saveModel(backbone, randomBackbone());
  await writeStripes(photos, 12);
});
afterAll(() => rm(folder, { recursive: true }));

const training = (out: string, ...more: string[]) => [
  ...["tune", backbone, "--tap", "c2", "--data", photos, "-o", out, "--cache", "none", "--threads", "1"],
  ...more,
];

async function json(...words: string[]) {
  const { status, stdout, stderr } = await polyhead(...words, "--json");
  return { status, document: JSON.parse(stdout), stderr };
}

/** Begins a training and kills it when so many checkpoints have been seen. */
async function killedAfter(words: readonly string[], checkpoint: string, checkpoints: number): Promise<void> {
  const steps = new Set<string>();
  await killed(words, async () => {
    for (const stage of await readdir(checkpoint).catch(() => [])) {
      for (const name of await readdir(join(checkpoint, stage)).catch(() => []))
        if (name.endsWith(".npz")) steps.add(`${stage} ${name}`);
    }
    return steps.size >= checkpoints;
  });
}

describe("a training that is killed", () => {
  const how = [
    "--way",
    "full",
    "--epochs",
    "6",
    "--batch",
    "4",
    "--checkpoint-steps",
    "3",
    "--patience",
    "6",
  ];

  it("goes on to the same file, byte for byte", { timeout: 300_000 }, async () => {
    const place = async (name: string) => {
      await mkdir(join(folder, name));
      return join(folder, name, "out.onnx");
    };
    const whole = await place("whole");
    expect((await json(...training(whole, ...how))).status).toBe(0);
    const files = async (out: string) =>
      Promise.all(
        [out, out.replace("out", "out-backbone")].map(async (path) => (await readFile(path)).toString("hex")),
      );
    const expected = await files(whole);
    for (const checkpoints of [1, 9]) {
      const out = await place(`killed-${checkpoints}`);
      const checkpoint = out.replace(/\.onnx$/, ".checkpoint");
      await killedAfter(training(out, ...how), checkpoint, checkpoints);
      await expect(readFile(out)).rejects.toThrow();
      if (checkpoints > 1) {
        // Begun anew by mistake, nothing is lost; with other settings it is another training.
        const anew = await json(...training(out, ...how));
        expect(anew).toMatchObject({ status: 65, document: { error: { code: "ALREADY_EXISTS" } } });
        const other = await json(...training(out, ...how, "--resume", "--lr", "0.5"));
        expect(other).toMatchObject({ status: 64, document: { error: { code: "INVALID_ARGUMENT" } } });
      }
      expect((await json(...training(out, ...how, "--resume"))).status).toBe(0);
      expect(await files(out)).toEqual(expected);
      expect(await readdir(join(out, ".."))).not.toContain("out.checkpoint");
    }
  });
});

describe("data that cannot be learned from", () => {
  it("leaves what was there as it was", { timeout: PATIENCE }, async () => {
    const out = join(folder, "kept.onnx");
    await writeFile(out, "what was there");
    const refused = async (data: string, code: string, ...more: string[]) => {
      const words = ["tune", backbone, "--tap", "c2", "--data", data, "-o", out, "--cache", "none", ...more];
      const { status, document } = await json(...words);
      expect({ status: status > 0, code: document.error?.code }).toEqual({ status: true, code });
      expect(await readFile(out, "utf8")).toBe("what was there");
    };
    const one = join(folder, "one");
    await writeStripes(one, 3);
    for (const name of ["down", "plain"]) await rm(join(one, name), { recursive: true });
    await refused(one, "INVALID_ARGUMENT", "--way", "head");
    await mkdir(join(one, "empty"));
    await refused(one, "DATA_MALFORMED", "--way", "head");
    const torn = join(folder, "torn");
    await writeStripes(torn, 3);
    for (const name of ["0.png", "1.png", "2.png"]) {
      const path = join(torn, "plain", name);
      await writeFile(path, (await readFile(path)).subarray(0, 40));
    }
    await refused(torn, "DATA_MALFORMED", "--way", "branch", "--freeze", "c1");
    await refused(photos, "DIVERGED", "--way", "full", "--optimizer", "sgd", "--lr", "1e30");
    await refused(photos, "INVALID_ARGUMENT", "--way", "head", "--folds", "3", "--validation", "0.2");
  });

  it("is listed and left out while it is little", { timeout: PATIENCE }, async () => {
    const torn = join(folder, "little");
    await writeStripes(torn, 4);
    await writeFile(join(torn, "plain", "0.png"), "no picture");
    const out = join(folder, "little.onnx");
    const words = [
      "tune",
      backbone,
      "--way",
      "head",
      "--tap",
      "c2",
      "--data",
      torn,
      "-o",
      out,
      "--folds",
      "2",
      "--weight-decay",
      "0.1",
    ];
    const { status, document } = await json(...words, "--cache", "none");
    expect(status).toBe(0);
    expect(document.problems).toMatchObject([{ id: "plain/0.png" }]);
    expect(document.examples).toBe(11);
    expect(await readFile(document.page, "utf8")).toContain("plain/0.png");
    expect(await json(...words, "--cache", "none", "--bad", "0")).toMatchObject({
      document: { error: { code: "DATA_MALFORMED" } },
    });
  });
});

describe("tune --publish", () => {
  it("goes live in a running server without a request that fails", { timeout: 300_000 }, async () => {
    const store = join(folder, "store");
    const [server, http] = await serve(store);
    try {
      expect((await json("heads", "add", backbone, "--server", http)).status).toBe(0);
      const publish = (way: readonly string[], seed: string) =>
        json(
          ...training(
            join(folder, `live-${seed}.onnx`),
            ...way,
            "--seed",
            seed,
            "--publish",
            "food",
            "--server",
            http,
          ),
        );
      const first = await publish(["--way", "head", "--folds", "2", "--weight-decay", "0.1"], "1");
      expect(first).toMatchObject({ status: 0, document: { published: { route: "food" } } });
      const x = {
        name: "image",
        shape: [1, 3, 48, 48],
        datatype: "FP32",
        data: Array.from({ length: 6912 }, () => 0.1),
      };
      const answers: { status: number; revision: string }[] = [];
      let isOver = false;
      const asking = (async () => {
        while (!isOver) {
          const body = JSON.stringify({ inputs: [x] });
          const response = await fetch(`${http}/v2/models/food/infer`, {
            method: "POST",
            body,
            headers: { "content-type": "application/json" },
          });
          const document = (await response.json()) as { model_version?: string };
          answers.push({ status: response.status, revision: String(document.model_version) });
          // Without a pause the asking takes all processors from the training.
          await sleep(5);
        }
      })();
      const second = await publish(["--way", "branch", "--freeze", "c1", "--epochs", "2"], "2");
      const third = await publish(["--way", "full", "--epochs", "2"], "3");
      await sleep(200);
      isOver = true;
      await asking;
      expect([second.status, third.status]).toEqual([0, 0]);
      expect(answers.filter(({ status }) => status !== 200)).toEqual([]);
      const revisions = [...new Set(answers.map(({ revision }) => revision))];
      const published = [first, second, third].map(({ document }) => document.published.revision);
      expect(revisions).toEqual(published);
      const head = await loadModel(join(folder, "live-3.onnx"));
      expect(await revisionOf(head)).toBe(published[2]);
      expect(readMetadata(head).provenance).toMatchObject({ way: "full", seed: 3 });
    } finally {
      const gone = once(server, "exit");
      server.kill("SIGTERM");
      await gone;
    }
  });
});

/** A server on a free port, and its address. */
async function serve(store: string): Promise<[ChildProcess, string]> {
  const words = [COMMAND, "serve", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--json"];
  const env = { ...process.env, POLYHEAD_STORE: store, POLYHEAD_RELAUNCH: "0" };
  const child = spawn(process.execPath, words, { env, stdio: ["ignore", "pipe", "ignore"] });
  let output = "";
  for await (const text of child.stdout.setEncoding("utf8")) {
    output += text;
    if (output.includes("\n")) break;
  }
  return [child, JSON.parse(output.split("\n")[0] ?? "").http];
}
