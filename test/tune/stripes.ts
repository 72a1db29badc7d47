/** Small made-up pictures of three classes, and settings under which they are learned in a moment. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import sharp from "sharp";
import { between, seededRandom } from "../../src/base/random.js";
import type { TuneImagesOptions } from "../../src/tune/tune-images.js";

/** Writes pictures with stripes across, down, or none, on random colours; one folder a class. */
export async function writeStripes(folder: string, each: number, seed = 1): Promise<void> {
  const random = seededRandom(seed);
  for (const [kind, name] of ["across", "down", "plain"].entries()) {
    await mkdir(join(folder, name), { recursive: true });
    for (let at = 0; at < each; at++) {
      const colours = [0, 1, 2].map(() => between(random, 90, 160));
      const strength = between(random, 40, 70);
      const period = between(random, 6, 8);
      const rgb = Uint8Array.from({ length: 48 * 48 * 3 }, (_, place) => {
        const pixel = Math.floor(place / 3);
        const along = kind === 0 ? Math.floor(pixel / 48) : pixel % 48;
        const wave = kind === 2 ? 0 : Math.sin((2 * Math.PI * along) / period);
        return Math.max(
          0,
          Math.min(255, (colours[place % 3] ?? 0) + strength * wave + between(random, -12, 12)),
        );
      });
      const file = join(folder, name, `${at}.png`);
      await sharp(rgb, { raw: { width: 48, height: 48, channels: 3 } })
        .png()
        .toFile(file);
    }
  }
}

/** Settings of a short training. */
export const SHORT: Pick<
  TuneImagesOptions,
  "head" | "tuning" | "judging" | "threads" | "versions" | "names"
> = {
  head: {
    shape: { kind: "linear", hidden: 8 },
    decays: [1e-3],
    isBalanced: false,
    seed: 0,
  },
  tuning: { epochs: 4, batch: 8, rate: 3e-3, optimizer: { kind: "adam" }, schedule: { kind: "cosine" } },
  judging: { by: "held-back", share: 0.25 },
  threads: 1,
  versions: { polyhead: "test" },
  names: { backbone: "random.onnx", data: "stripes" },
};
