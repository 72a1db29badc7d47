/**
 * What a detector's outputs mean, as a plain record that travels as JSON in the model's metadata
 * (`polyhead.decoding`). Two arrangements cover the published detectors: one array with a row a candidate, or
 * separate arrays of boxes, scores and classes; a third is the head that `centre-head.ts` makes targets for. Anchors
 * and other raw regression must be decoded within the model's graph. Data only; `detections.ts` does what it says.
 */
import type { ErrorCode } from "../base/errors.js";
import { RecordReader } from "./record.js";

const BOXES = ["x1y1x2y2", "y1x1y2x2", "xywh", "cxcywh"] as const;
const UNITS = ["pixels", "fractions"] as const;

/** One output with a row a candidate, shape [1, candidates, columns] or [candidates, columns]. */
export interface RowOutput {
  readonly arrangement: "rows";
  /** Name of the output. */
  readonly rows: string;
  /** First of the four columns of the box. */
  readonly boxColumn: number;
  readonly scoreColumn: number;
  readonly classColumn: number;
}

/** Separate outputs; a leading dimension of 1 is optional in each. */
export interface ArrayOutputs {
  readonly arrangement: "arrays";
  /** Name of the output with boxes, [1, candidates, 4]. */
  readonly boxes: string;
  /** Name of the output with scores: [1, candidates], or [1, candidates, labels] where no `classes` is named. */
  readonly scores: string;
  /** Name of the output with class numbers, [1, candidates]; the best score of a row decides without it. */
  readonly classes?: string;
}

/** Maps of an anchor-free head whose cells are `stride` pixels of the model's input wide and high. */
export interface CentreOutputs {
  readonly arrangement: "centres";
  /** Name of the output with probabilities, [1, classes, height, width]; objects are where it has its peaks. */
  readonly heat: string;
  /** Name of the output with widths and heights in cells, [1, 2, height, width]. */
  readonly size: string;
  /** Name of the output with the centre's place within its cell, [1, 2, height, width]. */
  readonly offset: string;
  readonly stride: number;
}

/** What a detector's outputs mean, and which candidates count. */
export type Decoding = (RowOutput | ArrayOutputs | CentreOutputs) & {
  /** Corners; or the top left corner, width and height; or the centre, width and height. */
  readonly box: (typeof BOXES)[number];
  /** Pixels of the model's input, or fractions of its width and height. */
  readonly units: (typeof UNITS)[number];
  /** Class number of the first label: 1 where 0 is the background. */
  readonly firstClass: number;
  /** Candidates below this score do not count. */
  readonly scoreThreshold: number;
  /** Of two boxes that overlap by more than this (intersection over union) the weaker one does not count. */
  readonly iouThreshold: number;
  /** Whether only boxes of the same class suppress each other. */
  readonly perClass: boolean;
  /** Most detections of an image. */
  readonly maxDetections: number;
};

/** Decoding of the COCO detector `centernet` of `@vladmandic/human`, with that library's thresholds. */
export const CENTERNET_DECODING: Decoding = {
  arrangement: "rows",
  rows: "tower_0/detections",
  boxColumn: 0,
  scoreColumn: 4,
  classColumn: 5,
  box: "x1y1x2y2",
  units: "pixels",
  firstClass: 0,
  scoreThreshold: 0.2,
  iouThreshold: 0.4,
  perClass: false,
  maxDetections: 100,
};

/**
 * The record in a value or in its JSON text, complete with defaults: corners in pixels, first class 0, score
 * 0.25, overlap 0.5 within a class, 100 detections; rows are box, score, class.
 * @param code INVALID_ARGUMENT where a caller gave it, MODEL_MALFORMED where a model's metadata did
 * @throws PolyheadError of that code, naming the field and what was expected
 */
export function parseDecoding(json: unknown, code: ErrorCode = "MODEL_MALFORMED"): Decoding {
  const reader = new RecordReader(json, "decoding", code);
  const outputs = parseOutputs(reader);
  const isCentres = outputs.arrangement === "centres";
  const decoding: Decoding = {
    ...outputs,
    // A head of centres has them and sizes, nothing else.
    box: isCentres ? reader.oneOf("box", ["cxcywh"], "cxcywh") : reader.oneOf("box", BOXES, "x1y1x2y2"),
    units: isCentres ? reader.oneOf("units", ["pixels"], "pixels") : reader.oneOf("units", UNITS, "pixels"),
    firstClass: reader.number("firstClass", { min: 0, whole: true }, 0),
    scoreThreshold: reader.number("scoreThreshold", { min: 0, max: 1 }, 0.25),
    iouThreshold: reader.number("iouThreshold", { min: 0, max: 1 }, 0.5),
    perClass: reader.flag("perClass", true),
    maxDetections: reader.number("maxDetections", { min: 1, whole: true }, 100),
  };
  reader.end();
  return decoding;
}

/** Names of the outputs that a decoding reads. */
export function outputsOf(decoding: Decoding): string[] {
  switch (decoding.arrangement) {
    case "rows":
      return [decoding.rows];
    case "arrays":
      return [decoding.boxes, decoding.scores, ...(decoding.classes === undefined ? [] : [decoding.classes])];
    case "centres":
      return [decoding.heat, decoding.size, decoding.offset];
  }
}

function parseOutputs(reader: RecordReader): RowOutput | ArrayOutputs | CentreOutputs {
  const arrangement = reader.oneOf("arrangement", ["rows", "arrays", "centres"]);
  if (arrangement === "centres") {
    return {
      arrangement,
      heat: reader.text("heat"),
      size: reader.text("size"),
      offset: reader.text("offset"),
      stride: reader.number("stride", { min: 1, whole: true }, 4),
    };
  }
  if (arrangement === "arrays") {
    const outputs = { arrangement, boxes: reader.text("boxes"), scores: reader.text("scores") };
    return reader.has("classes") ? { ...outputs, classes: reader.text("classes") } : outputs;
  }
  const column = { min: 0, whole: true };
  return {
    arrangement,
    rows: reader.text("rows"),
    boxColumn: reader.number("boxColumn", column, 0),
    scoreColumn: reader.number("scoreColumn", column, 4),
    classColumn: reader.number("classColumn", column, 5),
  };
}
