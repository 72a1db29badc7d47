/** The model repository extension: what the store has, and putting it before requests or away from them. */
import type { FastifyInstance } from "fastify";
import { PolyheadError } from "../../base/errors.js";
import { type Limits, limitExceeded } from "../protocol/limits.js";
import { shown } from "../protocol/shown.js";
import type { Service } from "../service.js";
import { authorOf } from "./access.js";
import { jsonOfBody } from "./body.js";
import { documented } from "./documented.js";
import { type ModelPath, modelOf } from "./model-routes.js";
import { IndexAnswer, IndexBody, RepositoryBody } from "./schemas.js";

const FILE = "file:";
/** Base64 takes a third more, and JSON around it a little. */
const BASE64_GROWTH = 1.4;
/** JavaScript's strings are not longer. */
const MOST_TEXT = 2 ** 29 - 2 ** 10;

/** Adds the routes. */
export function addRepositoryRoutes(app: FastifyInstance, service: Service, limits: Limits): void {
  app.post(
    "/v2/repository/index",
    {
      ...documented("repository", "All models of the store", "read", {
        body: IndexBody,
        answer: IndexAnswer,
      }),
      bodyLimit: limits.controlBytes,
    },
    async (request) => service.repositoryIndex(jsonOfBody(request, IndexBody).ready ?? false),
  );
  app.post<{ Params: ModelPath }>(
    "/v2/repository/models/:model/load",
    {
      ...documented("repository", "Loads a model of the store, or the one in the request", "control", {
        body: RepositoryBody,
      }),
      bodyLimit: Math.min(Math.ceil(limits.uploadBytes * BASE64_GROWTH) + limits.controlBytes, MOST_TEXT),
    },
    async (request, reply) => {
      const { name } = modelOf(request.params, limits);
      const file = fileOf(jsonOfBody(request, RepositoryBody).parameters ?? {}, limits);
      await service.repositoryLoad(name, file, authorOf(request, undefined, limits));
      return reply.code(200).send({});
    },
  );
  app.post<{ Params: ModelPath }>(
    "/v2/repository/models/:model/unload",
    {
      ...documented("repository", "Takes a model away from requests", "control", { body: RepositoryBody }),
      bodyLimit: limits.controlBytes,
    },
    async (request, reply) => {
      const { name } = modelOf(request.params, limits);
      jsonOfBody(request, RepositoryBody);
      await service.repositoryUnload(name, authorOf(request, undefined, limits));
      return reply.code(200).send({});
    },
  );
}

/** The model in the parameters of a load request. */
function fileOf(parameters: Readonly<Record<string, unknown>>, limits: Limits): Uint8Array | undefined {
  const files = Object.entries(parameters).filter(([name]) => name.startsWith(FILE));
  const [first] = files;
  if (!first) {
    if (!Object.hasOwn(parameters, "config")) return undefined;
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      "A model's configuration is read from its file and cannot be replaced; leave the parameter config away.",
      { parameter: "config" },
    );
  }
  const [name, text] = first;
  if (files.length > 1) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `The request has ${files.length} files; expected one ONNX file with its weights inside.`,
      { got: files.length },
    );
  }
  const bytes = typeof text === "string" ? Buffer.from(text, "base64") : Buffer.alloc(0);
  const length = typeof text === "string" ? text.replace(/={1,2}$/, "").length : 0;
  // The decoder skips what is no base64, so that the result is too short then.
  if (bytes.length === 0 || bytes.length !== Math.floor((length * 3) / 4)) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `The parameter ${shown(name)} is no base64; expected the bytes of an ONNX file in base64.`,
      {},
    );
  }
  if (bytes.length > limits.uploadBytes) {
    throw limitExceeded("The file has", bytes.length, limits.uploadBytes, "bytes");
  }
  return bytes;
}
