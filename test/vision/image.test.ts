import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import sharp from "sharp";
import { describe, expect, it } from "vitest";
import { decodeImage, imageTensor, parsePreprocessing, preprocessingRecipe } from "../../src/vision/index.js";
import { foodPhoto, personPhoto, pixel, plainImage, quarters } from "./pictures.js";

const malformed = expect.objectContaining({ code: "DATA_MALFORMED" });
const [RED, GREEN, BLUE, WHITE] = ["red", "green", "blue", "white"];

/** Names of the colours in the corners of a 60 x 40 or 40 x 60 picture: top left, top right, bottom left and right. */
function corners(image: Parameters<typeof pixel>[0]): string[] {
  const [right, bottom] = [image.width - 5, image.height - 5];
  return [
    pixel(image, 5, 5),
    pixel(image, right, 5),
    pixel(image, 5, bottom),
    pixel(image, right, bottom),
  ].map(([red = 0, green = 0, blue = 0]) => {
    if (Math.min(red, green, blue) > 200) return "white";
    if (red > 200) return "red";
    if (green > 200) return "green";
    return blue > 200 ? "blue" : `${red},${green},${blue}`;
  });
}

describe("decodeImage", () => {
  it("reads a real photo from a path and from bytes", async () => {
    const image = await decodeImage(foodPhoto("A001"));
    expect([image.width, image.height]).toEqual([307, 173]);
    expect(image.rgb.length).toBe(307 * 173 * 3);
    const person = await decodeImage(personPhoto());
    expect([person.width, person.height]).toEqual([1200, 1200]);
  });

  // What a viewer sees when the stored picture is turned as the EXIF standard says.
  const upright: Record<number, (string | undefined)[]> = {
    1: [RED, GREEN, BLUE, WHITE],
    2: [GREEN, RED, WHITE, BLUE],
    3: [WHITE, BLUE, GREEN, RED],
    4: [BLUE, WHITE, RED, GREEN],
    5: [RED, BLUE, GREEN, WHITE],
    6: [BLUE, RED, WHITE, GREEN],
    7: [WHITE, GREEN, BLUE, RED],
    8: [GREEN, WHITE, RED, BLUE],
  };
  for (const [orientation, expected] of Object.entries(upright)) {
    it(`turns EXIF orientation ${orientation} upright`, async () => {
      const file = await quarters()
        .withMetadata({ orientation: Number(orientation) })
        .jpeg({ quality: 95 })
        .toBuffer();
      const image = await decodeImage(file);
      expect([image.width, image.height]).toEqual(Number(orientation) < 5 ? [60, 40] : [40, 60]);
      expect(corners(image)).toEqual(expected);
    });
  }

  for (const format of ["png", "webp", "jpeg"] as const) {
    it(`reads ${format}`, async () => {
      expect(
        corners(await decodeImage(await quarters().toFormat(format, { quality: 95 }).toBuffer())),
      ).toEqual(upright[1]);
    });
  }

  it("makes grey and 16-bit grey into three equal channels", async () => {
    const grey = sharp({ create: { width: 8, height: 8, channels: 3, background: { r: 90, g: 90, b: 90 } } });
    const eight = await grey.clone().toColourspace("b-w").png().toBuffer();
    expect((await sharp(eight).metadata()).channels).toBe(1);
    expect(pixel(await decodeImage(eight), 3, 3)).toEqual([90, 90, 90]);
    const sixteen = await sharp(new Uint16Array(64).fill(90 * 257), {
      raw: { width: 8, height: 8, channels: 1 },
    })
      .toColourspace("grey16")
      .png()
      .toBuffer();
    expect((await sharp(sixteen).metadata()).depth).toBe("ushort");
    expect(pixel(await decodeImage(sixteen), 3, 3)).toEqual([90, 90, 90]);
  });

  it("makes 16-bit colour, with and without alpha, into 8 bits", async () => {
    for (const channels of [3, 4] as const) {
      const samples = new Uint16Array(64 * channels)
        .map((_, at) => [200, 100, 50, 255][at % channels] ?? 0)
        .map((v) => v * 257);
      const file = await sharp(samples, { raw: { width: 8, height: 8, channels } })
        .toColourspace("rgb16")
        .png()
        .toBuffer();
      expect((await sharp(file).metadata()).depth).toBe("ushort");
      expect(pixel(await decodeImage(file), 3, 3)).toEqual([200, 100, 50]);
    }
  });

  it("flattens alpha over the stated background", async () => {
    const clear = {
      width: 4,
      height: 4,
      channels: 4,
      background: { r: 255, g: 0, b: 0, alpha: 0.5 },
    } as const;
    for (const format of ["png", "webp"] as const) {
      const file = await sharp({ create: clear }).toFormat(format, { lossless: true }).toBuffer();
      const [red = 0, green = 0] = pixel(await decodeImage(file), 1, 1);
      expect(Math.abs(red - 255) + Math.abs(green - 127)).toBeLessThanOrEqual(2);
      const [, dark = 0, blue = 0] = pixel(await decodeImage(file, { background: [0, 0, 200] }), 1, 1);
      expect(dark + Math.abs(blue - 100)).toBeLessThanOrEqual(2);
    }
  });

  it("follows colour profiles and CMYK to sRGB", async () => {
    const cmyk = await quarters().toColourspace("cmyk").jpeg({ quality: 95 }).toBuffer();
    expect((await sharp(cmyk).metadata()).space).toBe("cmyk");
    const image = await decodeImage(cmyk);
    const [red = 0, green = 0, blue = 0] = pixel(image, 5, 5);
    expect(red).toBeGreaterThan(green + 100);
    expect(red).toBeGreaterThan(blue + 100);
    const wide = await sharp({
      create: { width: 8, height: 8, channels: 3, background: { r: 200, g: 80, b: 60 } },
    })
      .withIccProfile("p3")
      .png()
      .toBuffer();
    const stored = await sharp(wide, { ignoreIcc: true }).raw().toBuffer();
    expect([...stored.subarray(0, 3)]).not.toEqual([200, 80, 60]);
    pixel(await decodeImage(wide), 3, 3).forEach((value, channel) => {
      expect(Math.abs(value - ([200, 80, 60][channel] ?? 0))).toBeLessThanOrEqual(2);
    });
  });

  it("refuses what is no JPEG, PNG or WebP, SVG included", async () => {
    const gif = await quarters().gif().toBuffer();
    const svg = new TextEncoder().encode('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>');
    for (const bytes of [new Uint8Array(), gif, svg, new Uint8Array(100)]) {
      await expect(decodeImage(bytes)).rejects.toThrow(malformed);
    }
  });

  for (const format of ["jpeg", "png", "webp"] as const) {
    it(`refuses truncated ${format}`, async () => {
      const photo = await sharp(foodPhoto("B001")).toFormat(format).toBuffer();
      for (const share of [0.02, 0.3, 0.6, 0.9]) {
        const part = photo.subarray(0, Math.floor(photo.length * share));
        await expect(decodeImage(part), `${share}`).rejects.toThrow(malformed);
      }
    });

    it(`answers damaged ${format} with an image or a typed error`, async () => {
      const photo = await quarters().toFormat(format).toBuffer();
      await fc.assert(
        fc.asyncProperty(fc.nat(photo.length - 1), fc.nat(255), async (at, byte) => {
          const damaged = Uint8Array.from(photo);
          damaged[at] = byte;
          await decodeImage(damaged).then(
            ({ width, height, rgb }) => expect(rgb.length).toBe(width * height * 3),
            (thrown) => expect(["DATA_MALFORMED", "LIMIT_EXCEEDED"]).toContain(thrown.code),
          );
        }),
        { numRuns: 60 },
      );
    });
  }

  it("refuses too many pixels before decoding them", async () => {
    const file = await quarters().png().toBuffer();
    const limit = expect.objectContaining({ code: "LIMIT_EXCEEDED" });
    await expect(decodeImage(file, { maxPixels: 2399 })).rejects.toThrow(limit);
    expect((await decodeImage(file, { maxPixels: 2400 })).width).toBe(60);
    // A header of 60000 x 60000 with no such pixels behind it.
    const lying = Uint8Array.from(file);
    new DataView(lying.buffer).setUint32(16, 60000);
    new DataView(lying.buffer).setUint32(20, 60000);
    await expect(decodeImage(lying)).rejects.toMatchObject({ name: "PolyheadError" });
  });

  it("says when a file is missing or no file", async () => {
    const missing = expect.objectContaining({ code: "FILE_NOT_FOUND" });
    await expect(decodeImage("/nowhere/at/all.jpg")).rejects.toThrow(missing);
    await expect(decodeImage(tmpdir())).rejects.toThrow(missing);
    const folder = mkdtempSync(join(tmpdir(), "polyhead-"));
    const path = join(folder, "empty.png");
    writeFileSync(path, "");
    await expect(decodeImage(path)).rejects.toThrow(malformed);
    rmSync(folder, { recursive: true });
  });
});

describe("imageTensor", () => {
  const colour = [255, 51, 0] as const;

  it("maps 0..255 to the range, then mean and deviation, in the model's channel order", async () => {
    const record = {
      height: 2,
      width: 3,
      colour: "bgr",
      range: [-1, 1],
      mean: [0, 0.1, 0.2],
      deviation: [1, 2, 4],
    };
    const { tensor } = await imageTensor(plainImage(5, 5, colour), parsePreprocessing(record));
    expect(tensor.shape).toEqual([1, 3, 2, 3]);
    const planes = [-1 / 1, (51 / 127.5 - 1 - 0.1) / 2, (1 - 0.2) / 4];
    [...tensor.data].forEach((value, at) => {
      expect(value).toBeCloseTo(planes[Math.floor(at / 6)] ?? 0, 6);
    });
  });

  it("keeps channels beside each other in nhwc, and makes grey by luma", async () => {
    const raw = { height: 1, width: 2, layout: "nhwc", range: [0, 255] };
    const colours = await imageTensor(plainImage(5, 5, colour), parsePreprocessing(raw));
    expect(colours.tensor).toEqual({
      dtype: "float32",
      shape: [1, 1, 2, 3],
      data: Float32Array.of(...colour, ...colour),
    });
    const grey = await imageTensor(
      plainImage(5, 5, colour),
      parsePreprocessing({ ...raw, colour: "grey", dtype: "uint8" }),
    );
    expect(grey.tensor).toEqual({ dtype: "uint8", shape: [1, 1, 2, 1], data: Uint8Array.of(106, 106) });
  });

  it("rounds and clamps for whole-number types", async () => {
    const record = { height: 1, width: 1, dtype: "int8", range: [-128, 300], layout: "nhwc" };
    const { tensor } = await imageTensor(plainImage(1, 1, colour), parsePreprocessing(record));
    expect([...tensor.data]).toEqual([127, -42, -128]);
  });

  it("stretches, covers and contains", async () => {
    const image = await decodeImage(await quarters().png().toBuffer());
    const size = { height: 20, width: 20, layout: "nhwc", range: [0, 255], kernel: "nearest" };
    const at = async (fit: string, x: number, y: number) => {
      const { tensor } = await imageTensor(image, parsePreprocessing({ ...size, fit, padding: [1, 2, 3] }));
      return [...tensor.data].slice((y * 20 + x) * 3, (y * 20 + x) * 3 + 3);
    };
    expect(await at("stretch", 0, 0)).toEqual([250, 0, 0]);
    expect(await at("stretch", 19, 19)).toEqual([250, 250, 250]);
    expect(await at("cover", 0, 19)).toEqual([0, 0, 250]);
    expect(await at("contain", 10, 0)).toEqual([1, 2, 3]);
    expect(await at("contain", 19, 19)).toEqual([1, 2, 3]);
    expect(await at("contain", 0, 10)).toEqual([0, 0, 250]);
  });

  it("smooths when it shrinks", async () => {
    const stripes = plainImage(64, 64, [0, 0, 0]);
    for (let at = 0; at < stripes.rgb.length; at++) stripes.rgb[at] = Math.floor(at / 3) % 2 === 0 ? 0 : 200;
    const { tensor } = await imageTensor(
      stripes,
      parsePreprocessing({ height: 8, width: 8, range: [0, 255] }),
    );
    for (const value of tensor.data) expect(Math.abs(Number(value) - 100)).toBeLessThan(15);
  });

  it("takes images of any size", async () => {
    const sizes = fc.integer({ min: 1, max: 90 });
    const fits = fc.constantFrom("stretch", "cover", "contain");
    await fc.assert(
      fc.asyncProperty(
        sizes,
        sizes,
        sizes,
        sizes,
        fits,
        async (width, height, inputWidth, inputHeight, fit) => {
          const record = parsePreprocessing({
            height: inputHeight,
            width: inputWidth,
            fit,
            crop: 0.875,
            padding: [9, 9, 9],
            range: [0, 255],
          });
          const { tensor } = await imageTensor(plainImage(width, height, [9, 9, 9]), record);
          expect(tensor.shape).toEqual([1, 3, inputHeight, inputWidth]);
          expect(tensor.data.every((value: unknown) => value === 9)).toBe(true);
        },
      ),
      { numRuns: 60 },
    );
  });

  it("is deterministic on a real photo", async () => {
    const image = await decodeImage(foodPhoto("C001"));
    const first = await imageTensor(image, preprocessingRecipe("imagenet"));
    expect(first.tensor.shape).toEqual([1, 3, 224, 224]);
    expect(await imageTensor(image, preprocessingRecipe("imagenet"))).toEqual(first);
  });
});
