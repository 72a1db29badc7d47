/**
 * Failures as gRPC has them: the status of the catalogue, a message without anything of the host, and for programs
 * the catalogue's code and the time to wait in `grpc-status-details-bin` (google.rpc.ErrorInfo and RetryInfo).
 */
import { create } from "@bufbuild/protobuf";
import { anyPack, DurationSchema } from "@bufbuild/protobuf/wkt";
import { Metadata, type StatusObject, status } from "@grpc/grpc-js";
import { type PublicError, publicError, retryAfter } from "../protocol/public-error.js";
import { ErrorInfoSchema, RetryInfoSchema, StatusSchema } from "./generated/error_details_pb.js";
import { encode } from "./messages.js";

/** A failed call: what goes to the client, and what the log may tell. */
export interface Failure {
  readonly status: StatusObject;
  readonly name: string;
  readonly public: PublicError;
}

/** Letters of a message as gRPC writes it; clients refuse headers of more than 8 KiB in all. */
const MESSAGE_LENGTH = 2000;

const CODES: ReadonlyMap<string, number> = new Map(
  Object.entries(status).filter((entry): entry is [string, number] => typeof entry[1] === "number"),
);

/**
 * What a client is told of a failure.
 * @param requestId under which the log has the rest
 */
export function failure(thrown: unknown, requestId: string): Failure {
  const shown = publicError(thrown, requestId);
  const name = shown.error.status.grpc;
  const code = CODES.get(name) ?? status.UNKNOWN;
  const details = short(shown.message);
  const metadata = new Metadata();
  const info = anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { reason: shown.code, domain: "polyhead" }));
  const seconds = retryAfter(shown.error);
  const retry = anyPack(
    RetryInfoSchema,
    create(RetryInfoSchema, {
      retryDelay: create(DurationSchema, { seconds: BigInt(seconds) }),
    }),
  );
  const mayRetry = code === status.UNAVAILABLE;
  if (mayRetry) {
    metadata.set("retry-after", String(seconds));
    metadata.set("grpc-retry-pushback-ms", String(seconds * 1000));
  }
  metadata.set(
    "grpc-status-details-bin",
    encode(StatusSchema, { code, message: details, details: mayRetry ? [info, retry] : [info] }),
  );
  metadata.set("x-request-id", requestId);
  return { status: { code, details, metadata }, name, public: shown };
}

/** The message, well-formed and no longer than headers allow. */
function short(message: string): string {
  let text = Buffer.from(message, "utf8").toString("utf8");
  while (encodeURI(text).length > MESSAGE_LENGTH) {
    const letters = [...text];
    text = letters.slice(0, Math.floor(letters.length * 0.8)).join("");
  }
  return text;
}
