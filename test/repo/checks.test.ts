/** The project's own checks on small made-up projects: what they let pass and what they name. */
import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";

const HEADER = "/** A file. */\n";
const made: string[] = [];

afterEach(async () => {
  await Promise.all(made.splice(0).map((folder) => rm(folder, { recursive: true })));
});

async function project(files: Record<string, string>): Promise<string> {
  const root = await mkdtemp(join(tmpdir(), "polyhead-checks-"));
  made.push(root);
  await mkdir(join(root, "src/base"), { recursive: true });
  await mkdir(join(root, "docs"));
  await cp("src/base/errors.ts", join(root, "src/base/errors.ts"));
  await cp("docs/errors.md", join(root, "docs/errors.md"));
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), text);
  }
  return root;
}

/** Lines that the check prints, its verdict last, and its exit status. */
async function check(script: string, files: Record<string, string>) {
  const root = await project(files);
  return new Promise<{ lines: string[]; status: number }>((resolve) => {
    execFile(process.execPath, [`scripts/${script}.js`, root], (error, _out, text) => {
      resolve({ lines: text.trim().split("\n"), status: error ? Number(error.code) : 0 });
    });
  });
}

describe("check-layers", () => {
  it("lets imports of lower folders pass, and all from cli and the root", async () => {
    const { lines, status } = await check("check-layers", {
      "src/tensor/a.ts": 'import { x } from "../base/errors.js";',
      "src/runtime/node/b.ts":
        'import fs from "node:fs"; import "onnxruntime-node"; import "../../tensor/a.js";',
      "src/cli/main.ts": 'import "../runtime/node/b.js"; import "../index.js"; import "node:fs";',
      "src/index.ts": 'export * from "./tensor/a.js"; export * from "./runtime/node/b.js";',
      "src/tensor/a.test.ts": 'import "node:fs"; import "../cli/main.js";',
    });
    expect(lines).toEqual(["check-layers: ok"]);
    expect(status).toBe(0);
  });

  it("names every import that is not allowed, and why", async () => {
    const { lines, status } = await check("check-layers", {
      "src/base/a.ts": 'import "../index.js";',
      "src/cli/a.ts": 'import "../../bench/x.js";',
      "src/engine/a.ts": 'import { join } from "path";\nimport "../runtime/node/x.js";',
      "src/formats/a.ts": 'export * from "../runtime/x.js";',
      "src/odd/a.ts": "",
      "src/onnx/a.ts": 'import fs from "node:fs";',
      "src/runtime/a.ts": 'import sharp from "sharp";',
      "src/tensor/a.ts": '\nimport type { X } from "../onnx/x.js";',
      "src/vision/a.ts": 'await import("../engine/x.js");',
    });
    expect(lines).toEqual([
      "src/base/a.ts:1 imports ../index.js: src/base may import only itself",
      "src/cli/a.ts:1 imports ../../bench/x.js: sources import nothing outside of src/",
      "src/engine/a.ts:1 imports path: src/engine also runs in a browser",
      "src/engine/a.ts:2 imports ../runtime/node/x.js: src/engine also runs in a browser, src/runtime/node/ does not",
      "src/formats/a.ts:1 imports ../runtime/x.js: src/formats may import only base, tensor, onnx",
      "src/odd/a.ts:1 imports nothing known: src/odd has no row in scripts/check-layers.js",
      "src/onnx/a.ts:1 imports node:fs: src/onnx also runs in a browser",
      "src/runtime/a.ts:1 imports sharp: src/runtime also runs in a browser",
      "src/tensor/a.ts:2 imports ../onnx/x.js: src/tensor may import only base",
      "src/vision/a.ts:1 imports ../engine/x.js: src/vision may import only base, tensor, onnx",
      "check-layers: 10 offence(s)",
    ]);
    expect(status).toBe(1);
  });

  it("names cycles between files", async () => {
    const { lines, status } = await check("check-layers", {
      "src/tensor/a.ts": 'import "./b.js";',
      "src/tensor/b.ts": 'import "./c.js";',
      "src/tensor/c.ts": 'import type { A } from "./a.js";',
    });
    expect(lines[0]).toBe(
      "src/tensor/c.ts:1 imports ./a.js: cycle src/tensor/a.ts -> src/tensor/b.ts -> src/tensor/c.ts -> src/tensor/a.ts",
    );
    expect(status).toBe(1);
  });
});

describe("check-docs", () => {
  it("lets documented exports, overloads, re-exports and links to files pass", async () => {
    const { lines, status } = await check("check-docs", {
      "src/tensor/a.ts": `${HEADER}
        /** A number. */
        export const a = 1;
        /** For both. */
        export function f(x: number): void;
        export function f(x: string): void;
        export function f(): void {}
        /** Listed below. */
        class B {}
        export { B };
        const hidden = 2;
      `,
      "src/tensor/index.ts": `${HEADER}export * from "./a.js"; export { a as b } from "./a.js";`,
      "src/onnx/generated/x.ts": "export const undocumented = 1;",
      "README.md":
        "[errors](docs/errors.md#errors) [away](https://example.org/x) [here](#words)\n```\n[no](link)\n```",
    });
    expect(lines).toEqual(["check-docs: ok"]);
    expect(status).toBe(0);
  });

  it("names every gap", async () => {
    const { lines, status } = await check("check-docs", {
      "src/tensor/a.ts": "// A line.\n",
      "src/tensor/b.ts": `${HEADER}export const b = 1;`,
      "src/tensor/c.ts": `${HEADER}// Not enough.\nexport interface C {}`,
      "src/tensor/d.ts": `${HEADER}type D = 1;\nexport type { D };`,
      "src/tensor/e.ts": `${HEADER}export default function () {}`,
      "docs/errors.md": "# Errors\n",
      "docs/f.md": "Text.\nSee [there](../nowhere.md).",
    });
    expect(lines).toEqual([
      "src/tensor/a.ts:1 does not open with a block comment about the file",
      "src/tensor/b.ts:2 exports b without a JSDoc comment",
      "src/tensor/c.ts:3 exports C without a JSDoc comment",
      "src/tensor/d.ts:2 exports D without a JSDoc comment",
      "src/tensor/e.ts:2 exports default without a JSDoc comment",
      "docs/errors.md:1 differs from src/base/errors.ts: run node scripts/generate-errors.js",
      "docs/f.md:2 links to ../nowhere.md, which does not exist",
      "check-docs: 7 offence(s)",
    ]);
    expect(status).toBe(1);
  });
});
