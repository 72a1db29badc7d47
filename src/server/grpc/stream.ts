/**
 * ModelStreamInfer: any number of requests on one stream, run at the same time and answered in their order. A
 * request that fails is answered with its id and a message; the stream goes on.
 */
import { once } from "node:events";
import type { ServerDuplexStream } from "@grpc/grpc-js";
import { asError } from "../../base/errors.js";
import type { Limits } from "../protocol/limits.js";
import type { Service } from "../service.js";
import type { Call } from "./call.js";
import {
  type ModelInferRequest,
  ModelInferRequestSchema,
  ModelStreamInferResponseSchema,
} from "./generated/inference_pb.js";
import { decode, encode } from "./messages.js";
import { inferResponse, readInferRequest } from "./request.js";
import { type Failure, failure } from "./status.js";

/** Requests of one stream that may be under way; the next are left with the client. */
const MOST_UNDER_WAY = 16;

/**
 * Serves one stream until the client ends it or `stop` is aborted; resolves when all is answered.
 * @param failed is told of every request that failed
 */
export async function streamInference(
  stream: ServerDuplexStream<Buffer, Buffer>,
  call: Call,
  service: Service,
  limits: Limits,
  stop: AbortSignal,
  failed: (failure: Failure) => void,
): Promise<void> {
  let underWay = 0;
  let answered: Promise<void> = Promise.resolve();
  const send = async (answer: Promise<Buffer>) => {
    const bytes = await answer;
    if (!call.signal.aborted && !stream.write(bytes)) {
      await once(stream, "drain", { signal: call.signal }).catch(asError);
    }
    underWay -= 1;
    if (underWay < MOST_UNDER_WAY) stream.resume();
  };
  stream.on("data", (bytes: Buffer) => {
    underWay += 1;
    if (underWay >= MOST_UNDER_WAY) stream.pause();
    const answer = answerOne(bytes, call, service, limits, failed);
    answered = answered.then(() => send(answer));
  });
  await new Promise<void>((resolve) => {
    const over = () => {
      for (const signal of [stop, call.signal]) signal.removeEventListener("abort", over);
      resolve();
    };
    stream.once("end", over);
    for (const signal of [stop, call.signal]) signal.addEventListener("abort", over);
    if (stop.aborted || call.signal.aborted) over();
  });
  stream.pause();
  await answered;
}

async function answerOne(
  bytes: Buffer,
  call: Call,
  service: Service,
  limits: Limits,
  failed: (failure: Failure) => void,
): Promise<Buffer> {
  let message: ModelInferRequest | undefined;
  try {
    message = decode(ModelInferRequestSchema, bytes);
    const read = readInferRequest(message, service, limits, call.timeLeft(), call.signal);
    const result = await service.infer(read.request);
    const inferred = inferResponse(message, read, result, service, true);
    return encode(ModelStreamInferResponseSchema, { inferResponse: inferred });
  } catch (thrown) {
    const refusal = failure(thrown, call.requestId);
    failed(refusal);
    return encode(ModelStreamInferResponseSchema, {
      errorMessage: refusal.status.details || refusal.name,
      inferResponse: { modelName: message?.modelName ?? "", id: message?.id ?? "" },
    });
  }
}
