/** Which mistakes of a detector are shown. */
import { describe, expect, it } from "vitest";
import { detectionMistakes, type JudgedExample } from "../../src/tune/detect/mistakes.js";

const LABELS = ["cat", "dog"];
const box = (x: number) => ({ x1: x, y1: 0, x2: x + 10, y2: 10 });
const object = (classIndex: number, x: number, isIgnored = false) => ({ ...box(x), classIndex, isIgnored });
const detection = (classIndex: number, x: number, score: number) => ({
  label: LABELS[classIndex] ?? "",
  ...{ classIndex, score, box: box(x) },
});
const mistakesOf = (one: Pick<JudgedExample, "objects" | "detections">, threshold = 0.3) =>
  detectionMistakes([{ id: "a", path: "a.png", ...one }], LABELS, threshold);

describe("mistakes of a detector", () => {
  it("are none where every object was found", () => {
    const objects = [object(0, 0), object(1, 50)];
    expect(mistakesOf({ objects, detections: [detection(1, 51, 0.9), detection(0, 2, 0.8)] })).toEqual([]);
  });

  it("are another class, something where nothing is, and a second detection of one object", () => {
    const objects = [object(0, 0)];
    expect(mistakesOf({ objects, detections: [detection(1, 1, 0.9)] })).toMatchObject([
      { expected: "cat", predicted: "dog", confidence: 0.9, box: box(1) },
    ]);
    expect(mistakesOf({ objects, detections: [detection(0, 80, 0.6), detection(0, 0, 0.5)] })).toMatchObject([
      { expected: undefined, predicted: "cat", confidence: 0.6 },
    ]);
    expect(mistakesOf({ objects, detections: [detection(0, 0, 0.9), detection(0, 1, 0.7)] })).toMatchObject([
      { expected: undefined, predicted: "cat", confidence: 0.7 },
    ]);
  });

  it("are objects that were not found, but not ignored ones, nor what lies on those", () => {
    const objects = [object(0, 0, true), object(1, 50)];
    expect(mistakesOf({ objects, detections: [detection(0, 0, 0.9), detection(1, 50, 0.2)] })).toMatchObject([
      { expected: "dog", predicted: undefined, confidence: undefined, box: { x1: 50 } },
    ]);
    expect(mistakesOf({ objects, detections: [detection(1, 50, 0.2)] }, 0.1)).toEqual([]);
  });

  it("come one an image, the surest first", () => {
    const example = (id: string, detections: JudgedExample["detections"]) => ({
      ...{ id, path: id, detections },
      objects: [object(0, 0)],
    });
    const list = [
      example("missed", []),
      example("unsure", [detection(1, 0, 0.4), detection(1, 90, 0.35)]),
      example("sure", [detection(1, 90, 0.8), detection(0, 0, 0.7)]),
      example("right", [detection(0, 0, 0.7)]),
    ];
    expect(detectionMistakes(list, LABELS, 0.3).map(({ id }) => id)).toEqual(["sure", "unsure", "missed"]);
  });
});
