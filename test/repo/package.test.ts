/** The packed tarball as a user gets it: unpacked in an empty folder beside its dependencies, and nothing else. */
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { saveModel } from "../../src/files/disk.js";
import { architecture } from "../onnx/architectures.js";

const root = fileURLToPath(new URL("../..", import.meta.url));
const execute = promisify(execFile);

interface Manifest {
  readonly version: string;
  readonly dependencies: Readonly<Record<string, string>>;
  readonly exports: Readonly<Record<string, unknown>>;
}

let folder: string;
let manifest: Manifest;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "package-"));
  const modules = join(folder, "node_modules");
  await mkdir(modules);
  const pack = ["pack", "--ignore-scripts", "--json", "--pack-destination", folder];
  const [packed]: { filename: string }[] = JSON.parse((await execute("npm", pack, { cwd: root })).stdout);
  await execute("tar", ["xzf", join(folder, packed?.filename ?? ""), "-C", folder]);
  await rename(join(folder, "package"), join(modules, "polyhead"));
  manifest = JSON.parse(await readFile(join(modules, "polyhead/package.json"), "utf8"));
  for (const name of [...Object.keys(manifest.dependencies), "@types/node"]) {
    await mkdir(dirname(join(modules, name)), { recursive: true });
    await symlink(join(root, "node_modules", name), join(modules, name));
  }
  await saveModel(join(folder, "model.onnx"), architecture("squeeze and excite", "N"));
});
afterAll(() => rm(folder, { recursive: true }));

const node = (...args: string[]) => execute(process.execPath, args, { cwd: folder });

describe("the packed tarball", () => {
  it("has the command", async () => {
    const command = join("node_modules", "polyhead", "bin", "polyhead.js");
    expect((await node(command, "--version")).stdout).toBe(`${manifest.version}\n`);
    const { stdout } = await node(command, "inspect", "model.onnx", "--json");
    expect(JSON.parse(stdout)).toMatchObject({ file: "model.onnx", outputs: [{ name: "logits" }] });
  });

  it("has the engine, with its worker", async () => {
    await writeFile(
      join(folder, "program.mjs"),
      `import { float32, loadModel, openEngine } from "polyhead";
      const engine = await openEngine();
      await engine.add("model", await loadModel("model.onnx"));
      const { routes } = await engine.run(["model"], float32([2, 4, 8, 8], new Float32Array(512)));
      console.log(routes.model.outputs.logits.shape.join());
      await engine.close();`,
    );
    expect((await node("program.mjs")).stdout).toBe("2,5\n");
  });

  it("types every export", async () => {
    const subpaths = Object.keys(manifest.exports).filter((each) => !each.endsWith(".json"));
    expect(subpaths).toContain("./vision");
    const lines = subpaths.map((each, at) => `export * as m${at} from "polyhead${each.slice(1)}";`);
    const uses = 'import type { Engine } from "polyhead";\nexport const name: number = {} as Engine;\n';
    await writeFile(join(folder, "good.mts"), `${lines.join("\n")}\n`);
    await writeFile(join(folder, "bad.mts"), uses);
    const tsc = [join(root, "node_modules/typescript/bin/tsc"), "--noEmit", "--strict"];
    const options = ["--module", "nodenext", "--target", "es2023", "--types", "node"];
    const check = (file: string) => node(...tsc, ...options, file).then(({ stdout }) => stdout);
    expect(await check("good.mts")).toBe("");
    await expect(check("bad.mts")).rejects.toMatchObject({
      stdout: expect.stringMatching(/'Engine' is not assignable to type 'number'/),
    });
  });
});
