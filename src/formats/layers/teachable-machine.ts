/**
 * What Teachable Machine puts beside a model: `metadata.json` with the class names and the size of the image. The
 * model itself is an ordinary TF.js layers model; models of all users have the same MobileNet within.
 * Image models only: pose models read PoseNet's features, which are not in the export, and audio models read
 * spectrograms that TF.js makes from the microphone.
 */
import { PolyheadError } from "../../base/errors.js";
import { asWholeNumber, isRecord, malformed } from "../tfjs/json.js";

/** What is known of an image model. */
export interface TeachableMachineMetadata {
  readonly labels: readonly string[];
  /** Pixels of a side of the square image; undefined where the file does not say. */
  readonly imageSize: number | undefined;
  /** Whether the image is grey, as in models for microcontrollers. */
  readonly isGrey: boolean;
}

/** Whether parsed JSON looks like the metadata of a Teachable Machine export. */
export function isTeachableMachine(json: unknown): boolean {
  return (
    isRecord(json) &&
    (typeof json.tmVersion === "string" ||
      /^@teachablemachine\//.test(String(json.packageName)) ||
      Array.isArray(json.wordLabels))
  );
}

/**
 * Reads `metadata.json` of an image model.
 * @throws PolyheadError MODEL_UNSUPPORTED for pose and audio models, MODEL_MALFORMED
 */
export function readTeachableMachine(json: unknown): TeachableMachineMetadata {
  if (!isRecord(json)) throw malformed("metadata.json is no JSON object.");
  const kind = kindOf(json);
  if (kind !== "image") {
    throw new PolyheadError(
      "MODEL_UNSUPPORTED",
      kind === "pose"
        ? "This is a Teachable Machine pose model: it reads features of PoseNet, which is not in the export. Its head alone can be imported from model.json without metadata.json."
        : "This is a Teachable Machine audio model: it reads spectrograms that TF.js makes of the microphone's sound. Only image models are imported.",
      { kind },
    );
  }
  const labels = json.labels;
  if (!Array.isArray(labels) || !labels.every((label) => typeof label === "string"))
    throw malformed("metadata.json of Teachable Machine has no list of labels.");
  const imageSize = json.imageSize === undefined ? undefined : asWholeNumber(json.imageSize, "imageSize");
  return { labels, imageSize, isGrey: json.grayscale === true };
}

function kindOf(json: Readonly<Record<string, unknown>>): "image" | "pose" | "audio" {
  const name = String(json.packageName ?? "");
  if (name.endsWith("/pose") || isRecord(json.modelSettings)) return "pose";
  if (Array.isArray(json.wordLabels) || name.includes("speech-commands")) return "audio";
  return "image";
}
