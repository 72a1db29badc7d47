/**
 * Bodies of requests: read whole, up to their route's limit, and inflated up to the same limit. A body stays bytes
 * here; what it holds is its route's matter.
 */
import type { Readable } from "node:stream";
import { promisify } from "node:util";
import { gunzip, inflate } from "node:zlib";
import type { FastifyInstance, FastifyRequest } from "fastify";
import type { Static, TSchema } from "typebox";
import { asError, PolyheadError } from "../../base/errors.js";
import { freeNow, keptMemory } from "../../base/memory.js";
import { limitExceeded } from "../protocol/limits.js";
import { shown } from "../protocol/shown.js";
import { parseJson } from "./json-text.js";
import { checked } from "./validation.js";

const INFLATE = { gzip: promisify(gunzip), "x-gzip": promisify(gunzip), deflate: promisify(inflate) };

/** Makes the server read bodies of every content type but forms as bytes. */
export function readBodies(app: FastifyInstance): void {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("*", async (request: FastifyRequest, payload: Readable) => {
    const limit = request.routeOptions.bodyLimit;
    const body = await received(payload, request.headers["content-length"], limit);
    return inflated(body, request.headers["content-encoding"], limit);
  });
}

/** The bytes of the request's body; empty when it has none. */
export function bytesOfBody({ body }: FastifyRequest): Uint8Array {
  return body instanceof Uint8Array ? body : new Uint8Array(0);
}

/**
 * The JSON of the request's body, or `{}` when the body is empty.
 * @throws PolyheadError INVALID_ARGUMENT
 */
export function jsonOfBody<Type extends TSchema>(request: FastifyRequest, schema: Type): Static<Type> {
  const bytes = bytesOfBody(request);
  return checked(schema, bytes.length === 0 ? {} : parseJson(bytes, "The body"), "The body");
}

/**
 * The media type of the request's body, without its parameters; empty when the client gave none.
 */
export function mediaType({ headers }: FastifyRequest): string {
  return headers["content-type"]?.split(";", 1)[0]?.trim().toLowerCase() ?? "";
}

/** How many times what has arrived is set aside for what is announced: who sends nothing gets nothing that is not there. */
const AHEAD = 16;

/**
 * The bytes of a body, in memory of their own, which may be handed on. They are put in their place as they arrive:
 * many small pieces that wait for the last one are much work for the collector of garbage.
 */
function received(payload: Readable, header: string | undefined, limit: number): Promise<Buffer> {
  const announced = header === undefined ? undefined : Number(header);
  return new Promise((resolve, reject) => {
    let room = Buffer.alloc(0);
    let length = 0;
    const refuse = (reason: Error) => {
      payload.off("data", take).off("end", finish).off("error", fail);
      reject(reason);
    };
    const take = (piece: Buffer) => {
      const end = length + piece.length;
      if (end > limit) return refuse(tooLarge("more than", limit));
      if (end > room.length) {
        const wanted = Math.max(announced ?? 2 * end, end);
        const larger = Buffer.from(
          keptMemory(wanted) ?? new ArrayBuffer(Math.max(Math.min(wanted, AHEAD * end), end)),
        );
        room.copy(larger, 0, 0, length);
        freeNow(room);
        room = larger;
      }
      piece.copy(room, length);
      freeNow(piece);
      length = end;
    };
    const finish = () => {
      if (announced === undefined || announced === length) return resolve(room.subarray(0, length));
      const message = `The body has ${length} bytes; its Content-Length is ${shown(header)}.`;
      refuse(new PolyheadError("INVALID_ARGUMENT", message, { expected: announced, got: length }));
    };
    const fail = ({ message }: Error) =>
      refuse(new PolyheadError("INVALID_ARGUMENT", `The body did not arrive whole: ${message}.`, {}));
    if (announced !== undefined && announced > limit) refuse(tooLarge(announced, limit));
    else payload.on("data", take).on("end", finish).on("error", fail);
  });
}

function tooLarge(got: number | string, limit: number): PolyheadError {
  return limitExceeded("The body has", got, limit, "bytes");
}

async function inflated(body: Buffer, encoding: string | undefined, limit: number): Promise<Buffer> {
  const name = encoding?.trim().toLowerCase() ?? "identity";
  if (name === "identity" || name === "") return body;
  if (name !== "gzip" && name !== "x-gzip" && name !== "deflate") {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `The body has the Content-Encoding ${shown(encoding)}; expected gzip, deflate or identity.`,
      { expected: Object.keys(INFLATE) },
    );
  }
  try {
    return await INFLATE[name](body, { maxOutputLength: limit });
  } catch (thrown) {
    const error = asError(thrown);
    if ("code" in error && error.code === "ERR_BUFFER_TOO_LARGE") {
      throw limitExceeded("The body inflates to", "too many", limit, "bytes");
    }
    throw new PolyheadError("INVALID_ARGUMENT", `The body is not ${name} as its Content-Encoding says.`, {});
  }
}
