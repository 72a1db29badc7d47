/**
 * The shared memory extensions, which this server does not have: there never are any regions, which is the truth for
 * clients that ask and nothing to do for those that tidy up; those that bring one are told.
 */
import type { FastifyInstance } from "fastify";
import { Type } from "typebox";
import { PolyheadError } from "../../base/errors.js";
import { shown } from "../protocol/shown.js";
import { documented } from "./documented.js";

interface RegionPath {
  readonly region: string;
}

/** Adds the routes. */
export function addSharedMemoryRoutes(app: FastifyInstance): void {
  for (const kind of ["system", "cuda"]) {
    const path = `/v2/${kind}sharedmemory`;
    const nothing = Type.Array(Type.Unknown());
    app.get(
      `${path}/status`,
      documented("server", "Regions: there are none", "read", { answer: nothing }),
      async () => [],
    );
    app.get<{ Params: RegionPath }>(
      `${path}/region/:region/status`,
      documented("server", "A region: there are none", "read"),
      async ({ params }) => {
        throw new PolyheadError(
          "NOT_FOUND",
          `There is no region ${shown(params.region)} of shared memory.`,
          {},
        );
      },
    );
    app.post(
      `${path}/region/:region/register`,
      documented("server", "Refused: shared memory is not supported", "read"),
      async () => {
        throw new PolyheadError(
          "INVALID_ARGUMENT",
          "Shared memory is not supported; send tensors as binary data behind the JSON.",
          {},
        );
      },
    );
    for (const each of [`${path}/unregister`, `${path}/region/:region/unregister`]) {
      app.post(each, documented("server", "Does nothing: there are no regions", "read"), async (_, reply) =>
        reply.send(""),
      );
    }
  }
}
