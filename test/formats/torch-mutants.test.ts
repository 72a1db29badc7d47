/**
 * Broken PyTorch and safetensors files: whatever is done to their bytes, an import ends with a model or with an error
 * of the catalogue, in little memory. `POLYHEAD_MUTANTS=10000 npx vitest run test/formats/torch-mutants.test.ts` runs many.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { unzipSync, zipSync } from "fflate";
import { expect, it } from "vitest";
import { PolyheadError } from "../../src/base/errors.js";
import { isZip } from "../../src/base/zip.js";
import { importSafetensors, importTorch } from "../../src/formats/index.js";
import { randomNumbers } from "./tfjs-oracle.js";

const MUTANTS = Number(process.env.POLYHEAD_MUTANTS ?? 400);
const MOST_MEMORY = 2 ** 28;

const folder = fileURLToPath(new URL("../fixtures/torch/", import.meta.url));
const files = readdirSync(folder)
  .filter((name) => /\.(pth|pkl|safetensors)$/.test(name) && name !== "layers.pth")
  .map((name) => ({ name, bytes: new Uint8Array(readFileSync(folder + name)) }));
const pickles = files.flatMap(({ bytes }) => {
  if (!isZip(bytes)) return [bytes];
  return Object.entries(unzipSync(bytes)).flatMap(([name, content]) =>
    name.endsWith("/data.pkl") ? [content] : [],
  );
});

/** Bytes with a few random changes; parts of other pickles may come in. */
function mutated(bytes: Uint8Array, random: () => number): Uint8Array {
  const below = (limit: number) => Math.floor(random() * limit);
  let made = [...bytes];
  for (let changes = 1 + below(4); changes > 0; changes--) {
    const at = below(made.length);
    const other = pickles[below(pickles.length)] ?? bytes;
    const from = below(other.length);
    const length = below(40);
    const part = [...other.subarray(from, from + length)];
    const kind = below(7);
    if (kind === 0) made[at] = below(256);
    else if (kind === 1) made[at] = (made[at] ?? 0) ^ (1 << below(8));
    else if (kind === 2) made.splice(at, 0, below(256));
    else if (kind === 3) made.splice(at, length);
    else if (kind === 4) made.splice(at, 0, ...part);
    else if (kind === 5) made.splice(at, part.length, ...part);
    else made = below(4) === 0 ? made.slice(0, at) : made.with(at, 0xff);
    if (made.length === 0) made = [0];
  }
  return Uint8Array.from(made);
}

/** The file with its pickle mutated, the archive around it whole; or with any of its bytes mutated. */
function mutant(bytes: Uint8Array, random: () => number): Uint8Array {
  if (!isZip(bytes) || random() < 0.2) return mutated(bytes, random);
  const entries = Object.entries(unzipSync(bytes)).map(([name, content]) => [
    name,
    name.endsWith("/data.pkl") ? mutated(content, random) : content,
  ]);
  return zipSync(Object.fromEntries(entries), { level: random() < 0.1 ? 6 : 0 });
}

it(`survives ${MUTANTS} mutated files`, { timeout: 600_000 }, () => {
  const random = randomNumbers(2026);
  const ends = new Map<string, number>();
  const before = process.memoryUsage();
  for (let count = 0; count < MUTANTS; count++) {
    const file = files[count % files.length];
    if (!file) continue;
    const bytes = mutant(file.bytes, random);
    let end = "imported";
    try {
      if (file.name.endsWith(".safetensors")) importSafetensors(bytes);
      else importTorch(bytes);
    } catch (thrown) {
      if (!(thrown instanceof PolyheadError))
        throw new Error(`mutant ${count} of ${file.name}`, { cause: thrown });
      end = thrown.code;
    }
    expect({ count, name: file.name, end }).not.toMatchObject({ end: "INTERNAL" });
    ends.set(end, (ends.get(end) ?? 0) + 1);
    const now = process.memoryUsage();
    expect(now.arrayBuffers - before.arrayBuffers + now.heapUsed - before.heapUsed).toBeLessThan(MOST_MEMORY);
  }
  // The mutations reach all of the reader: some files stay sound, some break, some ask for what is refused.
  for (const end of ["imported", "MODEL_MALFORMED", "MODEL_UNSUPPORTED"])
    expect([end, ends.get(end) ?? 0]).toEqual([end, expect.toSatisfy((times: number) => times > 0)]);
  expect(existsSync("/tmp/polyhead_ran")).toBe(false);
});
