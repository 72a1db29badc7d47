/**
 * From a detector's outputs to boxes on the image: decoding by the model's record, back through the placement,
 * non-maximum suppression. One image at a time.
 */
import { PolyheadError } from "../base/errors.js";
import { formatShape, type Shape, type Tensor, toNumbers } from "../tensor/index.js";
import type { ArrayOutputs, CentreOutputs, Decoding, RowOutput } from "./decoding.js";
import { type Placement, toImagePoint } from "./placement.js";

/** A rectangle on an image, in pixels from the top left corner; x2 and y2 are outer edges. */
export interface Box {
  readonly x1: number;
  readonly y1: number;
  readonly x2: number;
  readonly y2: number;
}

/** An object on an image, as somebody marked it: its class and where it is. */
export interface ObjectBox extends Box {
  /** Place of its class in the labels. */
  readonly classIndex: number;
  /**
   * Neither learned from nor counted for or against a detector: COCO's crowds and Pascal VOC's difficult objects.
   */
  readonly isIgnored?: boolean;
  /** Area of the object itself in pixels (of its outline, say), where it is known; of the box else. */
  readonly area?: number;
}

/** One object that was found. */
export interface Detection {
  readonly label: string;
  /** Place of the label in the list of labels. */
  readonly classIndex: number;
  /** Confidence from 0 to 1. */
  readonly score: number;
  /** In pixels of the image, within it. */
  readonly box: Box;
}

/**
 * The objects in a detector's outputs for one image, best first.
 * @param outputs by name, as the model gave them for one row
 * @param labels by class; a class beyond them is called by its number
 * @param placement where the image lay in the model's input
 * @throws PolyheadError MODEL_MALFORMED when the outputs are not what the record says
 */
export function decodeDetections(
  outputs: ReadonlyMap<string, Tensor>,
  decoding: Decoding,
  labels: readonly string[],
  placement: Placement,
): Detection[] {
  const detections: Detection[] = [];
  for (const { values, score, classNumber } of candidatesOf(outputs, decoding)) {
    const classIndex = classNumber - decoding.firstClass;
    // Written so that NaN fails.
    const counts = score >= decoding.scoreThreshold && Number.isInteger(classIndex) && classIndex >= 0;
    if (!counts || !values.every(Number.isFinite)) continue;
    const box = toImageBox(corners(values, decoding.box), decoding.units, placement);
    if (box.x2 <= box.x1 || box.y2 <= box.y1) continue;
    detections.push({ label: labels[classIndex] ?? `class ${classIndex}`, classIndex, score, box });
  }
  const { iouThreshold, perClass, maxDetections } = decoding;
  return suppressOverlaps(detections, { iouThreshold, perClass }).slice(0, maxDetections);
}

/** How {@link suppressOverlaps} compares. */
export type Suppression = Pick<Decoding, "iouThreshold" | "perClass">;

/**
 * Greedy non-maximum suppression: best score first, without those that overlap a better one by more than the
 * threshold. Equal scores keep their order.
 */
export function suppressOverlaps(
  detections: readonly Detection[],
  { iouThreshold, perClass }: Suppression,
): Detection[] {
  const kept: Detection[] = [];
  for (const candidate of detections.toSorted((a, b) => b.score - a.score)) {
    const isCovered = kept.some(
      (better) =>
        (!perClass || better.classIndex === candidate.classIndex) &&
        intersectionOverUnion(better.box, candidate.box) > iouThreshold,
    );
    if (!isCovered) kept.push(candidate);
  }
  return kept;
}

/** Area shared by two boxes over the area of both together: 0 when they are apart, 1 when they are equal. */
export function intersectionOverUnion(a: Box, b: Box): number {
  const width = Math.min(a.x2, b.x2) - Math.max(a.x1, b.x1);
  const height = Math.min(a.y2, b.y2) - Math.max(a.y1, b.y1);
  if (width <= 0 || height <= 0) return 0;
  const shared = width * height;
  return shared / (area(a) + area(b) - shared);
}

function area({ x1, y1, x2, y2 }: Box): number {
  return (x2 - x1) * (y2 - y1);
}

interface Candidate {
  readonly values: Float64Array;
  readonly score: number;
  readonly classNumber: number;
}

function candidatesOf(outputs: ReadonlyMap<string, Tensor>, decoding: Decoding): Iterable<Candidate> {
  switch (decoding.arrangement) {
    case "rows":
      return fromRows(outputs, decoding);
    case "arrays":
      return fromArrays(outputs, decoding);
    case "centres":
      return fromCentres(outputs, decoding);
  }
}

function* fromRows(outputs: ReadonlyMap<string, Tensor>, decoding: RowOutput): Generator<Candidate> {
  const { boxColumn, scoreColumn, classColumn } = decoding;
  const needed = Math.max(boxColumn + 4, scoreColumn + 1, classColumn + 1);
  const { values, columns } = readOutput(outputs, decoding.rows, 2);
  if (columns < needed) throw unlike(decoding.rows, `at least ${needed} columns`, `${columns}`);
  for (let row = 0; row < values.length; row += columns) {
    yield {
      values: values.subarray(row + boxColumn, row + boxColumn + 4),
      score: values[row + scoreColumn] ?? 0,
      classNumber: values[row + classColumn] ?? 0,
    };
  }
}

function* fromArrays(outputs: ReadonlyMap<string, Tensor>, decoding: ArrayOutputs): Generator<Candidate> {
  const boxes = readOutput(outputs, decoding.boxes, 2);
  const scores = readOutput(outputs, decoding.scores, decoding.classes === undefined ? 2 : 1);
  const classes =
    decoding.classes === undefined ? undefined : readOutput(outputs, decoding.classes, 1).values;
  const count = boxes.values.length / 4;
  if (boxes.columns !== 4) throw unlike(decoding.boxes, "4 columns", `${boxes.columns}`);
  if (scores.values.length !== count * scores.columns || (classes && classes.length !== count)) {
    throw unlike(
      decoding.scores,
      `${count} rows, as many as ${decoding.boxes}`,
      `${scores.values.length} values`,
    );
  }
  for (let row = 0; row < count; row++) {
    const ofRow = scores.values.subarray(row * scores.columns, (row + 1) * scores.columns);
    const score = ofRow.reduce((best, value) => Math.max(best, value), Number.NEGATIVE_INFINITY);
    const classNumber = classes ? (classes[row] ?? 0) : ofRow.indexOf(score);
    yield { values: boxes.values.subarray(row * 4, row * 4 + 4), score, classNumber };
  }
}

/** The peaks of the heat map: cells that no neighbour of their class exceeds. */
function* fromCentres(
  outputs: ReadonlyMap<string, Tensor>,
  decoding: CentreOutputs & Pick<Decoding, "scoreThreshold">,
): Generator<Candidate> {
  const { stride, scoreThreshold } = decoding;
  const heat = readMap(outputs, decoding.heat);
  const [size, offset] = [decoding.size, decoding.offset].map((name) => {
    const map = readMap(outputs, name);
    const isAlike = map.channels === 2 && map.height === heat.height && map.width === heat.width;
    if (isAlike) return map.values;
    throw unlike(
      name,
      formatShape([1, 2, heat.height, heat.width]),
      formatShape([1, map.channels, map.height, map.width]),
    );
  });
  const { channels, height, width, values } = heat;
  const cells = height * width;
  for (let classNumber = 0; classNumber < channels; classNumber++) {
    const map = values.subarray(classNumber * cells, (classNumber + 1) * cells);
    for (let cell = 0; cell < cells; cell++) {
      const score = map[cell] ?? 0;
      const [row, column] = [Math.floor(cell / width), cell % width];
      if (!(score >= scoreThreshold) || !isPeak(map, heat, row, column)) continue;
      const at = (array: Float64Array | undefined, channel: number) => array?.[channel * cells + cell] ?? 0;
      const x = column + at(offset, 0);
      const y = row + at(offset, 1);
      const box = [x, y, at(size, 0), at(size, 1)];
      yield { values: Float64Array.from(box, (value) => value * stride), score, classNumber };
    }
  }
}

function isPeak(
  map: Float64Array,
  { height, width }: { height: number; width: number },
  row: number,
  column: number,
): boolean {
  const own = map[row * width + column] ?? 0;
  for (let y = Math.max(0, row - 1); y <= Math.min(height - 1, row + 1); y++) {
    for (let x = Math.max(0, column - 1); x <= Math.min(width - 1, column + 1); x++) {
      if ((map[y * width + x] ?? 0) > own) return false;
    }
  }
  return true;
}

/** An output of one image with a map a channel. */
function readMap(outputs: ReadonlyMap<string, Tensor>, name: string) {
  const { values, shape } = readOutput(outputs, name, 3);
  const [channels = 0, height = 0, width = 0] = shape.slice(-3);
  return { values, channels, height, width };
}

/** An output's numbers, after a check that it is for one image and has `rank` dimensions beside. */
function readOutput(
  outputs: ReadonlyMap<string, Tensor>,
  name: string,
  rank: 1 | 2 | 3,
): { values: Float64Array; columns: number; shape: Shape } {
  const output = outputs.get(name);
  if (!output) throw unlike(name, "an output of this name", [...outputs.keys()].join(", ") || "no output");
  const { shape } = output;
  const single = shape.length === rank + 1 && shape[0] === 1;
  if (!single && shape.length !== rank) {
    throw unlike(name, `the outputs of one image in ${rank} dimensions`, `shape ${formatShape(shape)}`);
  }
  return { values: toNumbers(output), columns: rank === 1 ? 1 : (shape.at(-1) ?? 1), shape };
}

/** A box in whatever form as corners. */
function corners([a = 0, b = 0, c = 0, d = 0]: Float64Array, form: Decoding["box"]): Box {
  switch (form) {
    case "x1y1x2y2":
      return { x1: a, y1: b, x2: c, y2: d };
    case "y1x1y2x2":
      return { x1: b, y1: a, x2: d, y2: c };
    case "xywh":
      return { x1: a, y1: b, x2: a + c, y2: b + d };
    case "cxcywh":
      return { x1: a - c / 2, y1: b - d / 2, x2: a + c / 2, y2: b + d / 2 };
  }
}

/** A box on the model's input as one on the image, cut at the image's edges. */
function toImageBox({ x1, y1, x2, y2 }: Box, units: Decoding["units"], placement: Placement): Box {
  const { image, input } = placement;
  const [wide, high] = units === "pixels" ? [1, 1] : [input.width, input.height];
  const from = toImagePoint(placement, x1 * wide, y1 * high);
  const to = toImagePoint(placement, x2 * wide, y2 * high);
  const within = (value: number, limit: number) => Math.min(limit, Math.max(0, value));
  return {
    x1: within(from.x, image.width),
    y1: within(from.y, image.height),
    x2: within(to.x, image.width),
    y2: within(to.y, image.height),
  };
}

function unlike(name: string, expected: string, got: string): PolyheadError {
  return new PolyheadError(
    "MODEL_MALFORMED",
    `The decoding does not fit the model's output ${JSON.stringify(name)}: expected ${expected}; got ${got}.`,
    { output: name, expected, got },
  );
}
