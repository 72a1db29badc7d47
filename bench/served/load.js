/**
 * Requests to a server, from a process of their own, so that what they cost is not taken for the server's delay: by
 * several clients one after the other, or at a pace that does not wait for answers. Every fourth goes over gRPC; none
 * uses the feature cache, so that each is work.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { answerParent } from "../serving/child.js";
import { grpcClient, httpClient } from "./clients.js";

/** @typedef {{ accepted: number[], refused: number[], wrong: string[], retryless: number, sent: number, perSecond: number }} Tally */

/** gRPC lets some hundred calls share a connection; the others would wait in the client. */
const GRPC_CONNECTIONS = 8;
const CLIENTS = 8;

/** @type {{ http: import("./clients.js").InferClient, grpc: import("./clients.js").InferClient[], side: number,
 *   inputs: Float32Array[], expected: number[][] }} */
let target;

answerParent(async ({ open, closed, server }) => {
  if (server) {
    target = {
      http: httpClient(server.http),
      grpc: Array.from({ length: GRPC_CONNECTIONS }, () => grpcClient(server.grpc)),
      side: server.side,
      inputs: server.inputs.map((/** @type {number[]} */ each) => Float32Array.from(each)),
      expected: server.expected,
    };
    return {};
  }
  return closed ? closedLoop(closed.seconds) : openLoop(open);
});

/** Requests one after the other by several clients: what the server can do. */
async function closedLoop(/** @type {number} */ seconds) {
  const tally = emptyTally();
  const begin = performance.now();
  const work = async () => {
    while (performance.now() - begin < seconds * 1000) await ask(tally);
  };
  await Promise.all(Array.from({ length: CLIENTS }, work));
  return { ...tally, perSecond: (tally.accepted.length * 1000) / (performance.now() - begin) };
}

/** Requests at a pace, however many are under way. */
async function openLoop(/** @type {{ perSecond: number, seconds: number }} */ { perSecond, seconds }) {
  const tally = emptyTally();
  const underWay = /** @type {Set<Promise<unknown>>} */ (new Set());
  const begin = performance.now();
  while (performance.now() - begin < seconds * 1000) {
    const due = Math.floor(((performance.now() - begin) / 1000) * perSecond);
    while (tally.sent < due) {
      const asked = ask(tally);
      underWay.add(asked);
      void asked.then(() => underWay.delete(asked));
    }
    await sleep(2);
  }
  await Promise.all(underWay);
  return { ...tally, perSecond: (tally.accepted.length * 1000) / (performance.now() - begin) };
}

/** One request, noted in the tally. */
async function ask(/** @type {Tally} */ tally) {
  const at = tally.sent++;
  const { http, grpc, inputs, expected, side } = target;
  const client = at % 4 === 3 ? (grpc[Math.floor(at / 4) % grpc.length] ?? http) : http;
  const place = at % inputs.length;
  const begin = performance.now();
  const answer = await client.infer({
    routes: ["scores"],
    input: inputs[place] ?? new Float32Array(0),
    side,
    parameters: { cache: false },
  });
  const milliseconds = performance.now() - begin;
  const { status, retryAfter, routes, error } = answer;
  const scores = routes[0]?.scores ?? [];
  const isRight = expected[place]?.every(
    (value, index) => Math.abs(value - (scores[index] ?? Number.NaN)) < 1e-3,
  );
  if ((status === 200 || status === 0) && isRight) tally.accepted.push(milliseconds);
  else if (status === 503 || status === 14) {
    tally.refused.push(milliseconds);
    if (!(Number(retryAfter) >= 1)) tally.retryless++;
  } else tally.wrong.push(`${status} ${error ?? "with other scores"}`);
}

/** @returns {Tally} */
function emptyTally() {
  return { accepted: [], refused: [], wrong: [], retryless: 0, sent: 0, perSecond: 0 };
}
