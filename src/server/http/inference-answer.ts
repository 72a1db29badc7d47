/** An inference response as HTTP has it: JSON, followed by the outputs that were asked for as binary data. */
import { datatypeOf } from "../protocol/datatypes.js";
import type { AnsweredOutput } from "../protocol/outputs.js";
import { writeRawTensor } from "../protocol/raw-tensor.js";
import { writeJsonData } from "./json-data.js";

/** What a response says beside its outputs. */
export interface AnswerHead {
  readonly model_name: string;
  readonly model_version: string;
  readonly id?: string | undefined;
  readonly parameters: Readonly<Record<string, string | number | boolean>>;
}

/** A body ready to be sent. */
export interface WrittenAnswer {
  readonly body: Buffer;
  /** Bytes of JSON when binary data follows. */
  readonly jsonLength: number | undefined;
}

/**
 * The response for these outputs.
 * @param isBinary whether an output is answered as binary data
 * @throws PolyheadError MODEL_UNSUPPORTED for outputs of types that the protocol has not
 */
export function writeInference(
  head: AnswerHead,
  outputs: readonly AnsweredOutput[],
  isBinary: (output: string) => boolean,
): WrittenAnswer {
  const several = new Set(outputs.map(({ route }) => route)).size > 1;
  const binaries: Uint8Array[] = [];
  const parts = outputs.map(({ name, route, revision, tensor }) => {
    const origin = several ? { route, revision } : {};
    const raw = isBinary(name) ? writeRawTensor(tensor) : undefined;
    const parameters = { ...origin, ...(raw && { binary_data_size: raw.length }) };
    const description = JSON.stringify({
      name,
      shape: tensor.shape,
      datatype: datatypeOf(tensor.dtype),
      ...(Object.keys(parameters).length > 0 && { parameters }),
    });
    if (!raw) return `${description.slice(0, -1)},"data":${writeJsonData(tensor)}}`;
    binaries.push(raw);
    return description;
  });
  const json = Buffer.from(`${JSON.stringify(head).slice(0, -1)},"outputs":[${parts.join(",")}]}`);
  const isMixed = binaries.length > 0;
  return {
    body: isMixed ? Buffer.concat([json, ...binaries]) : json,
    jsonLength: isMixed ? json.length : undefined,
  };
}
