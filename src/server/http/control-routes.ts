/** Control: routes and their history, adding models, switching, promotion, rollback and removal. */
import type { FastifyInstance } from "fastify";
import type { Static } from "typebox";
import { Type } from "typebox";
import { PolyheadError } from "../../base/errors.js";
import { type Limits, limitExceeded } from "../protocol/limits.js";
import { checkModelName } from "../protocol/names.js";
import { shown } from "../protocol/shown.js";
import type { RouteTarget, Service } from "../service.js";
import { authorOf } from "./access.js";
import { bytesOfBody, jsonOfBody, mediaType } from "./body.js";
import {
  AddAnswer,
  AddFields,
  AddKeptBody,
  GenerationAnswer,
  HistoryAnswer,
  HistoryFields,
  ReasonBody,
  RemoveAnswer,
  RouteAnswer,
  RoutesAnswer,
  SwitchBody,
  type Target,
} from "./control-schemas.js";
import { documented } from "./documented.js";
import { queryOf, uploadOf } from "./uploads.js";
import { checkedFields } from "./validation.js";

/** What all control paths begin with. */
export const CONTROL_PREFIX = "/polyhead/v1";

interface RoutePath {
  readonly route: string;
}
const Bytes = Type.String({ format: "binary" });

/** Adds the routes. */
export function addControlRoutes(app: FastifyInstance, service: Service, limits: Limits): void {
  addReadingRoutes(app, service, limits);
  const nameOf = (name: unknown) => checkModelName(name, "The route's name", limits);
  const small = { bodyLimit: limits.controlBytes };

  app.post(
    `${CONTROL_PREFIX}/models`,
    {
      ...documented("control", "Adds a model: a new route, or a revision kept ready", "control", {
        bodies: {
          "application/octet-stream": Bytes,
          "multipart/form-data": Type.Intersect([Type.Object({ file: Bytes }), AddFields]),
          "application/json": AddKeptBody,
        },
        query: AddFields,
        answer: AddAnswer,
        status: 201,
        description:
          "The body is an ONNX file, a form with one, or JSON that names a revision which the store has.",
      }),
      bodyLimit: limits.uploadBytes,
    },
    async (request, reply) => {
      if (mediaType(request) === "application/json") {
        const { length } = bytesOfBody(request);
        if (length > limits.controlBytes)
          throw limitExceeded("The body has", length, limits.controlBytes, "bytes of JSON");
        const { revision, route, reason } = jsonOfBody(request, AddKeptBody);
        const kept = checkModelName(revision, "The revision", limits);
        const author = authorOf(request, reason, limits);
        return reply.code(201).send({ revision: await service.addKept(kept, nameOf(route), author), route });
      }
      const { file, fields } = await uploadOf(request, limits.uploadBytes);
      const { route, title, reason } = checkedFields(AddFields, fields, "The request");
      const name = route === undefined ? undefined : nameOf(route);
      const called = title === undefined ? undefined : checkModelName(title, "The title", limits);
      const revision = await service.addModel(file, name, authorOf(request, reason, limits), called);
      return reply.code(201).send({ revision, route: name });
    },
  );
  app.post(
    `${CONTROL_PREFIX}/switch`,
    {
      ...documented("control", "Points routes elsewhere, all at once", "control", {
        body: SwitchBody,
        answer: GenerationAnswer,
      }),
      ...small,
    },
    async (request) => {
      const { targets, reason } = jsonOfBody(request, SwitchBody);
      const entries = Object.entries(targets);
      if (entries.length > limits.entries) {
        throw limitExceeded("The switch has", entries.length, limits.entries, "routes");
      }
      const changes = entries.map(([route, target]) => [nameOf(route), targetOf(target, route, limits)]);
      const author = authorOf(request, reason, limits);
      return { generation: await service.setTargets(Object.fromEntries(changes), author) };
    },
  );
  for (const action of ["promote", "rollback"] as const) {
    const summary = action === "promote" ? "Gives a canary all requests" : "Takes a route's last change back";
    app.post<{ Params: RoutePath }>(
      `${CONTROL_PREFIX}/routes/:route/${action}`,
      {
        ...documented("control", summary, "control", { body: ReasonBody, answer: GenerationAnswer }),
        ...small,
      },
      async (request) => {
        const route = nameOf(request.params.route);
        const { reason } = jsonOfBody(request, ReasonBody);
        return { generation: await service[action](route, authorOf(request, reason, limits)) };
      },
    );
  }
  app.delete<{ Params: RoutePath }>(
    `${CONTROL_PREFIX}/routes/:route`,
    {
      ...documented("control", "Takes a route away", "control", { query: ReasonBody, answer: RemoveAnswer }),
      ...small,
    },
    async (request) => {
      const route = nameOf(request.params.route);
      const { reason } = checkedFields(ReasonBody, queryOf(request), "The query");
      await service.removeRoute(route, authorOf(request, reason, limits));
      return { removed: route };
    },
  );
}

function addReadingRoutes(app: FastifyInstance, service: Service, limits: Limits): void {
  app.get<{ Params: { readonly revision: string } }>(
    `${CONTROL_PREFIX}/models/:revision`,
    documented("control", "The ONNX file of a revision", "control", {}),
    async ({ params }, reply) => {
      const file = await service.modelFile(checkModelName(params.revision, "The revision", limits));
      return reply
        .type("application/octet-stream")
        .send(Buffer.from(file.buffer, file.byteOffset, file.byteLength));
    },
  );
  app.get(
    `${CONTROL_PREFIX}/routes`,
    documented("control", "All routes", "read", { answer: RoutesAnswer }),
    async () => ({
      routes: service.routes(),
    }),
  );
  app.get<{ Params: RoutePath }>(
    `${CONTROL_PREFIX}/routes/:route`,
    documented("control", "A route, with its shadows' comparisons", "read", { answer: RouteAnswer }),
    async ({ params }) => service.route(checkModelName(params.route, "The route's name", limits)),
  );
  for (const path of [`${CONTROL_PREFIX}/history`, `${CONTROL_PREFIX}/routes/:route/history`]) {
    app.get<{ Params: Partial<RoutePath> }>(
      path,
      documented("control", "Earlier changes, the newest first", "read", {
        query: HistoryFields,
        answer: HistoryAnswer,
      }),
      async (request) => {
        const { limit } = checkedFields(HistoryFields, queryOf(request), "The query");
        const { route } = request.params;
        const name = route === undefined ? undefined : checkModelName(route, "The route's name", limits);
        return { history: service.history(name).slice(0, limit) };
      },
    );
  }
}

/** @throws PolyheadError INVALID_ARGUMENT when a revision stands twice, or limits have no canary to bound */
function targetOf(given: string | Static<typeof Target>, route: string, limits: Limits): RouteTarget {
  const target = typeof given === "string" ? { revisions: [{ revision: given, weight: 1 }] } : given;
  const { revisions, shadows = [] } = target;
  const names = [...revisions.map(({ revision }) => revision), ...shadows];
  if (names.length > limits.entries) {
    throw limitExceeded(`The target of ${shown(route)} has`, names.length, limits.entries, "revisions");
  }
  for (const name of names) checkModelName(name, `A revision of ${shown(route)}`, limits);
  if (new Set(names).size !== names.length) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `The target of ${shown(route)} names a revision twice; name it once.`,
      {
        route,
      },
    );
  }
  if (target.limits && revisions.length < 2) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `The target of ${shown(route)} has limits and one revision; limits bound a canary, a second revision.`,
      { route },
    );
  }
  return { revisions, shadows, limits: target.limits };
}
