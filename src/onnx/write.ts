/**
 * Writing a model. Only the graph goes through protobuf; the bytes of big weights are passed on as they are,
 * either as pieces of the model file or as an external data file beside it. Nothing here touches a disk: the
 * result is lists of pieces for whoever writes them.
 */
import { create, toBinary } from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { PolyheadError } from "../base/errors.js";
import {
  GraphProtoSchema,
  TensorProto_DataLocation as Location,
  ModelProtoSchema,
  TensorProtoSchema,
} from "./generated/onnx_pb.js";
import type { Model, Weight } from "./model.js";
import { MAX_MODEL_BYTES } from "./read.js";

/** Weights from this size on (bytes) do not go through protobuf. */
const BIG = 16 * 1024;
/** Field numbers of the published schema that are written by hand. */
const FIELD = { modelGraph: 7, graphInitializer: 5, tensorRawData: 9 } as const;

/** A model ready to be written. */
export interface SerializedModel {
  /** The `.onnx` file, in pieces. */
  readonly file: readonly Uint8Array[];
  /**
   * The external data file, in pieces; empty when all weights are in the `.onnx` file. Weights that share their memory
   * share their place, as in the file that they were read from: a small file must not become a large one.
   */
  readonly external: readonly Uint8Array[];
}

/**
 * The pieces of a model's files. Pieces alias the model's weights.
 * @param externalName name of the data file that takes the weights of 16 KiB and more; without it all
 *   weights are in the `.onnx` file, which must then stay under 2 GiB
 */
export function serializeModel(model: Model, externalName?: string): SerializedModel {
  const { graph } = model;
  const big = graph.initializer.filter((weight) => weight.rawData.length >= BIG);
  const small = graph.initializer.filter((weight) => weight.rawData.length < BIG);
  const external: Uint8Array[] = [];
  const graphPieces: Uint8Array[] = [
    toBinary(GraphProtoSchema, Object.assign(create(GraphProtoSchema), graph, { initializer: small })),
  ];
  let end = 0;
  const places = new Map<Uint8Array, number>();
  for (const weight of big) {
    if (externalName === undefined) {
      graphPieces.push(...inlineWeight(weight));
    } else {
      const { rawData } = weight;
      const start = places.get(rawData) ?? alignedOffset(end, rawData.length);
      if (!places.has(rawData)) {
        places.set(rawData, start);
        if (start > end) external.push(new Uint8Array(start - end));
        external.push(rawData);
        end = start + rawData.length;
      }
      graphPieces.push(...externalWeight(weight, externalName, start));
    }
  }
  if (totalLength(graphPieces) > MAX_MODEL_BYTES) {
    throw new PolyheadError(
      "LIMIT_EXCEEDED",
      `The model takes ${totalLength(graphPieces)} bytes in one file; protobuf allows ${MAX_MODEL_BYTES}. Store its weights as external data.`,
      { bytes: totalLength(graphPieces), limit: MAX_MODEL_BYTES },
    );
  }
  const rest = Object.assign(create(ModelProtoSchema), model, { graph: undefined });
  return {
    file: [toBinary(ModelProtoSchema, rest), fieldHead(FIELD.modelGraph, graphPieces), ...graphPieces],
    external,
  };
}

/** A model as the bytes of one `.onnx` file. */
export function modelBytes(model: Model): Uint8Array {
  const { file } = serializeModel(model);
  const bytes = new Uint8Array(totalLength(file));
  let at = 0;
  for (const piece of file) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

/** Bytes of the constants that {@link serializeModel} would put into external data. */
export function bigWeightBytes(model: Model): number {
  return totalLength(
    model.graph.initializer.map((weight) => weight.rawData).filter((raw) => raw.length >= BIG),
  );
}

/** Memory-mapped data starts on a page; on Windows pages are mapped in steps of 64 KiB. */
function alignedOffset(end: number, length: number): number {
  const step = length >= 2 ** 20 ? 2 ** 16 : 2 ** 12;
  return Math.ceil(end / step) * step;
}

function inlineWeight(weight: Weight): Uint8Array[] {
  const head = toBinary(TensorProtoSchema, withoutData(weight));
  const pieces = [head, fieldHead(FIELD.tensorRawData, [weight.rawData]), weight.rawData];
  return [fieldHead(FIELD.graphInitializer, pieces), ...pieces];
}

function externalWeight(weight: Weight, location: string, offset: number): Uint8Array[] {
  const head = withoutData(weight);
  head.dataLocation = Location.EXTERNAL;
  head.externalData = Object.entries({ location, offset, length: weight.rawData.length }).map(
    ([key, value]) => ({
      $typeName: "onnx.StringStringEntryProto",
      key,
      value: String(value),
    }),
  );
  const bytes = toBinary(TensorProtoSchema, head);
  return [fieldHead(FIELD.graphInitializer, [bytes]), bytes];
}

/** The weight but for its bytes and what a file says of their place, so that both ways to write it say the same. */
function withoutData(weight: Weight): Weight {
  const { rawData: _, dataLocation: _location, externalData: _external, ...rest } = weight;
  return Object.assign(create(TensorProtoSchema), rest);
}

function fieldHead(field: number, pieces: readonly Uint8Array[]): Uint8Array {
  return new BinaryWriter().tag(field, WireType.LengthDelimited).uint32(totalLength(pieces)).finish();
}

function totalLength(pieces: readonly Uint8Array[]): number {
  return pieces.reduce((sum, piece) => sum + piece.length, 0);
}
