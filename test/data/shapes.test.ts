/** The made-up data set of shapes: the same for the same seed, boxes that fit, readable as COCO's. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  AUGMENTATIONS,
  asListed,
  BatchOrder,
  batches,
  boxDataSet,
  boxRows,
  type ObjectBox,
  readCocoFile,
  SHAPE_LABELS,
  shapesPicture,
  writeShapes,
} from "../../src/data/index.js";
import { rowOf } from "../../src/tensor/index.js";
import {
  centreTargets,
  decodeDetections,
  detectionQuality,
  intersectionOverUnion,
  type JudgedImage,
  parseDecoding,
  parsePreprocessing,
  placeImage,
} from "../../src/vision/index.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "polyhead-"));
});
afterAll(() => rm(folder, { recursive: true }));

describe("pictures of shapes", () => {
  it("have boxes that the shapes touch on all sides, apart from each other", () => {
    for (let number = 0; number < 40; number++) {
      const { image, objects } = shapesPicture(number, { seed: 4, most: 5 });
      expect(objects.length).toBeGreaterThan(0);
      for (const [at, box] of objects.entries()) {
        expect(box.x1).toBeGreaterThanOrEqual(0);
        expect(box.y2).toBeLessThanOrEqual(image.height);
        for (const other of objects.slice(0, at))
          expect(intersectionOverUnion(box, other)).toBeLessThanOrEqual(0.1);
        // Noise gives no two pixels of the background the same colour so often; the last object lies uppermost.
        if (at < objects.length - 1) continue;
        const colourAt = (x: number, y: number) =>
          image.rgb.slice((y * image.width + x) * 3, (y * image.width + x) * 3 + 3);
        const colour = `${colourAt(Math.floor((box.x1 + box.x2) / 2), Math.floor((box.y1 + box.y2) / 2))}`;
        const columns: number[] = [];
        const rows: number[] = [];
        for (let y = box.y1; y < box.y2; y++) {
          for (let x = box.x1; x < box.x2; x++) {
            if (`${colourAt(x, y)}` !== colour) continue;
            columns.push(x);
            rows.push(y);
          }
        }
        expect(columns).toHaveLength(box.area ?? 0);
        expect([Math.min(...columns), Math.max(...columns) + 1]).toEqual([box.x1, box.x2]);
        expect([Math.min(...rows), Math.max(...rows) + 1]).toEqual([box.y1, box.y2]);
      }
    }
  });

  it("are the same for the same seed", () => {
    expect(shapesPicture(3, { seed: 1 })).toEqual(shapesPicture(3, { seed: 1 }));
    expect(shapesPicture(3, { seed: 1 }).image.rgb).not.toEqual(shapesPicture(4, { seed: 1 }).image.rgb);
    expect(shapesPicture(3, { seed: 1 }).image.rgb).not.toEqual(shapesPicture(3, { seed: 2 }).image.rgb);
  });

  it("come back as boxes, augmented, through targets, outputs and decoding", async () => {
    const set = await boxDataSet(
      await readCocoFile(await writeShapes(join(folder, "whole"), 10, { seed: 5 })),
    );
    const preprocessing = parsePreprocessing({ height: 96, width: 128, fit: "contain" });
    const rows = boxRows(set.examples, { preprocessing, augmentation: AUGMENTATIONS.boxes });
    const order = new BatchOrder({ count: 10, size: 5, seed: 1 });
    const grid = { classes: 3, height: 24, width: 32, stride: 4 };
    const decoding = parseDecoding({ arrangement: "centres", heat: "heat", size: "size", offset: "offset" });
    // What a perfect head answers: the targets themselves. Only the centres have the value 1.
    const exact = { ...decoding, scoreThreshold: 0.9999, iouThreshold: 1 };
    const placement = placeImage({ width: 128, height: 96 }, preprocessing);
    const judged: JudgedImage[] = [];
    for await (const { y } of batches({
      rows,
      order,
      seed: 1,
      to: 6,
      collate: asListed<readonly ObjectBox[]>,
    })) {
      const { heat, size, offset } = centreTargets(y, grid);
      y.forEach((objects, row) => {
        const outputs = new Map(
          Object.entries({ heat, size, offset }).map(([name, of]) => [name, rowOf(of, row)]),
        );
        judged.push({ objects, detections: decodeDetections(outputs, exact, SHAPE_LABELS, placement) });
      });
    }
    expect(judged).toHaveLength(30);
    const quality = detectionQuality(judged, 3);
    expect(quality.perClass.every(({ objects }) => objects > 10)).toBe(true);
    expect(quality.ap).toBe(1);
    expect(quality.ar100).toBe(1);
  });

  it("are a data set in COCO's format, with all shapes", async () => {
    const path = await writeShapes(join(folder, "shapes"), 12, { seed: 7, width: 96, height: 64 });
    const listing = await readCocoFile(path);
    const set = await boxDataSet(listing);
    expect(set.labels).toEqual(SHAPE_LABELS);
    expect(set.problems).toEqual([]);
    expect(set.notes).toEqual([]);
    expect(set.examples.map(({ target }) => target)).toEqual(
      [...Array(12).keys()].map(
        (number) => shapesPicture(number, { seed: 7, width: 96, height: 64 }).objects,
      ),
    );
    const again = await writeShapes(join(folder, "again"), 12, { seed: 7, width: 96, height: 64 });
    expect((await boxDataSet(await readCocoFile(again))).digest).toBe(set.digest);
  });
});
