/** Inference: tensors by the Open Inference Protocol, and encoded images straight in. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { Type } from "typebox";
import { PolyheadError } from "../../base/errors.js";
import { withClasses } from "../protocol/classification.js";
import { datatypeOf } from "../protocol/datatypes.js";
import type { Limits } from "../protocol/limits.js";
import { answeredOutputs, wantedOutputs } from "../protocol/outputs.js";
import { readParameters } from "../protocol/parameters.js";
import { shown } from "../protocol/shown.js";
import type { ImageRouteResult, Service } from "../service.js";
import { bytesOfBody, mediaType } from "./body.js";
import { compressed } from "./compression.js";
import { documented } from "./documented.js";
import { writeInference } from "./inference-answer.js";
import { checkId, readInference } from "./inference-body.js";
import { writeJsonData } from "./json-data.js";
import { type ModelPath, modelOf } from "./model-routes.js";
import { signalOf } from "./requests.js";
import { ImageAnswer, ImageFields, InferenceAnswer, InferenceBody } from "./schemas.js";
import { uploadOf } from "./uploads.js";
import { checkedFields } from "./validation.js";

const IMAGE_TYPES = ["image/jpeg", "image/png", "image/webp"];
const FORM = "multipart/form-data";
const JSON_LENGTH = "inference-header-content-length";
const Bytes = Type.String({ format: "binary" });

type InferRequest = FastifyRequest<{ Params: ModelPath }>;

/** Adds the routes. */
export function addInferenceRoutes(app: FastifyInstance, service: Service, limits: Limits): void {
  const options = {
    ...documented("inference", "Answers for tensors or for an image", "read", {
      bodies: {
        "application/json": InferenceBody,
        "application/octet-stream": Bytes,
        ...Object.fromEntries(IMAGE_TYPES.map((type) => [type, Bytes])),
        [FORM]: Type.Intersect([Type.Object({ image: Bytes }), ImageFields]),
      },
      query: ImageFields,
      answer: Type.Union([InferenceAnswer, ImageAnswer]),
      description:
        "Tensors are JSON, or JSON followed by binary data (header Inference-Header-Content-Length). An image is the body, or the one file of a form; the query's fields are for images only.",
    }),
    bodyLimit: limits.bodyBytes,
    // Before the body is read, so that turning a request away costs next to nothing.
    onRequest: async () => service.admit(),
  };
  for (const path of ["/v2/models/:model/infer", "/v2/models/:model/versions/:version/infer"]) {
    app.post<{ Params: ModelPath }>(path, options, async (request, reply) => {
      const type = mediaType(request);
      if (type === FORM || type.startsWith("image/"))
        return inferImage(service, limits, request, reply, type);
      return inferTensors(service, limits, request, reply);
    });
  }
}

async function inferTensors(
  service: Service,
  limits: Limits,
  request: InferRequest,
  reply: FastifyReply,
): Promise<FastifyReply> {
  const { name, version } = modelOf(request.params, limits);
  const header = request.headers[JSON_LENGTH];
  const body = readInference(
    bytesOfBody(request),
    Array.isArray(header) ? header.join() : header,
    () => service.model(name, version),
    limits,
  );
  const { routes, ...parameters } = readParameters(body.parameters, limits);
  const wanted = wantedOutputs(service, name, version, routes, body.outputs, limits);
  const signal = signalOf(reply);
  const result = await service.infer({
    routes: wanted.routes,
    version,
    inputs: body.inputs,
    owned: true,
    signal,
    ...parameters,
  });
  const revision = result.routes[name]?.revision ?? "";
  const { generation, cached } = result;
  const answer = writeInference(
    {
      model_name: name,
      model_version: revision,
      ...(body.id !== undefined && { id: body.id }),
      parameters: { revision, generation, cached },
    },
    withClasses(answeredOutputs(wanted, result), body.classes, service),
    body.isBinary,
  );
  if (answer.jsonLength !== undefined) reply.header(JSON_LENGTH, answer.jsonLength);
  return reply
    .header("content-type", answer.jsonLength === undefined ? "application/json" : "application/octet-stream")
    .send(await compressed(request, reply, answer.body));
}

async function inferImage(
  service: Service,
  limits: Limits,
  request: InferRequest,
  reply: FastifyReply,
  type: string,
): Promise<FastifyReply> {
  const { name, version } = modelOf(request.params, limits);
  if (type !== FORM && !IMAGE_TYPES.includes(type)) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `The Content-Type is ${shown(type)}; expected one of ${IMAGE_TYPES.join(", ")}, or ${FORM} with one file.`,
      { expected: IMAGE_TYPES },
    );
  }
  const { file, fields } = await uploadOf(request, limits.bodyBytes);
  const { threshold, top, id, ...given } = checkedFields(ImageFields, fields, "The request");
  const { routes, ...parameters } = readParameters(new Map(Object.entries(given)), limits);
  const wanted = wantedOutputs(service, name, version, routes, [], limits);
  const signal = signalOf(reply);
  const result = await service.inferImage({
    image: file,
    routes: wanted.routes,
    version,
    threshold,
    top,
    signal,
    ...parameters,
  });
  const { generation, cached, image } = result;
  const head = {
    model_name: name,
    model_version: result.routes[name]?.revision ?? "",
    ...(id !== undefined && { id: checkId(id, limits) }),
    generation,
    cached,
    image,
  };
  const answers = Object.entries(result.routes).map(
    ([route, answer]) => `${JSON.stringify(route)}:${imageAnswer(answer)}`,
  );
  return reply
    .header("content-type", "application/json")
    .send(`${JSON.stringify(head).slice(0, -1)},"routes":{${answers.join(",")}}}`);
}

function imageAnswer({ revision, classes, detections, outputs }: ImageRouteResult): string {
  const answer = {
    revision,
    ...(classes && {
      classes: classes.map(({ label, classIndex, score }) => ({ label, index: classIndex, score })),
    }),
    ...(detections && {
      detections: detections.map(({ label, classIndex, score, box }) => ({
        label,
        index: classIndex,
        score,
        box,
      })),
    }),
  };
  if (!outputs) return JSON.stringify(answer);
  // By hand, because the data may have numbers that JSON.stringify does not know.
  const tensors = Object.entries(outputs).map(([name, tensor]) => {
    const description = JSON.stringify({ name, datatype: datatypeOf(tensor.dtype), shape: tensor.shape });
    return `${description.slice(0, -1)},"data":${writeJsonData(tensor)}}`;
  });
  return `${JSON.stringify(answer).slice(0, -1)},"outputs":[${tensors.join(",")}]}`;
}
