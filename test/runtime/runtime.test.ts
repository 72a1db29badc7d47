/** The life cycle around backends, on mock backends whose every call the test can hold. */
import { getEventListeners } from "node:events";
import { describe, expect, it } from "vitest";
import { PolyheadError } from "../../src/base/errors.js";
import { MockMachine } from "../../src/runtime/mock.js";
import { Runtime } from "../../src/runtime/runtime.js";
import { chain, FUNCTIONS, given, HeldMachine, mockModel, numbersOf, settle, stateOf } from "./machine.js";

const code = (expected: string) => expect.objectContaining({ code: expected });
const open = (machine: MockMachine, workers = 1, queueLimit?: number) =>
  Runtime.open(machine.start, { workers, ...(queueLimit !== undefined && { queueLimit }) });
const liveSessions = (machine: MockMachine) => machine.living.map(({ sessions }) => sessions.size);

describe("loading", () => {
  it("is one load for equal keys at the same time, in each worker", async () => {
    const machine = new HeldMachine("create");
    const runtime = await open(machine, 2);
    const loads = [1, 2, 3].map(() => runtime.acquire("k", mockModel("double")));
    for (const call of await machine.take(2)) call.pass();
    const handles = await Promise.all(loads);
    expect(new Set(handles.map(({ number }) => number)).size).toBe(1);
    for (const handle of handles.slice(1)) await handle.release();
    expect(liveSessions(machine)).toEqual([1, 1]);
    await handles[0]?.release();
    expect(liveSessions(machine)).toEqual([0, 0]);
    expect(machine.faults).toEqual([]);
  });

  it("that one worker refuses frees what the others made and can be tried again", async () => {
    const machine = new HeldMachine("create");
    const runtime = await open(machine, 2);
    const loads = [1, 2].map(() => runtime.acquire("k", mockModel("double")));
    const [first, second] = await machine.take(2);
    first?.pass();
    second?.fail(new PolyheadError("LOAD_FAILED", "no memory", {}));
    for (const load of loads) await expect(load).rejects.toEqual(code("LOAD_FAILED"));
    expect(liveSessions(machine)).toEqual([0, 0]);
    expect(runtime.stats.sessions).toBe(0);
    machine.hold();
    const handle = await runtime.acquire("k", mockModel("double"));
    expect(numbersOf(await runtime.run(chain(handle.number), given(1)))).toEqual([2]);
    expect(machine.faults).toEqual([]);
  });

  it("reports a bad model, and a model that cannot be had, and keeps nothing of them", async () => {
    const machine = new MockMachine(FUNCTIONS);
    const runtime = await open(machine);
    await expect(runtime.acquire("k", mockModel("nothing"))).rejects.toEqual(code("LOAD_FAILED"));
    const missing = () => {
      throw new Error("gone");
    };
    await expect(runtime.acquire("k", missing)).rejects.toThrow("gone");
    expect(runtime.stats.sessions).toBe(0);
    await (await runtime.acquire("k", mockModel("double"))).release();
  });

  it("is given back exactly once", async () => {
    const machine = new MockMachine(FUNCTIONS);
    const runtime = await open(machine);
    const handle = await runtime.acquire("k", mockModel("double"));
    await handle.release();
    await expect(handle.release()).rejects.toEqual(code("CLOSED"));
    await expect(runtime.run(chain(handle.number), given(1))).rejects.toEqual(code("CLOSED"));
    expect(machine.faults).toEqual([]);
  });

  it("of a key that is being freed is a new load", async () => {
    const machine = new HeldMachine("release");
    const runtime = await open(machine);
    const old = await runtime.acquire("k", mockModel("double"));
    const freeing = old.release();
    const fresh = await runtime.acquire("k", mockModel("double"));
    expect(fresh.number).not.toBe(old.number);
    (await machine.takeOne()).pass();
    await freeing;
    expect([...(machine.backends[0]?.sessions.keys() ?? [])]).toEqual([fresh.number]);
  });
});

describe("running", () => {
  it("takes programs of several sessions and keeps the order of the queue", async () => {
    const machine = new HeldMachine("run");
    const runtime = await open(machine);
    const double = await runtime.acquire("d", mockModel("double"));
    const negate = await runtime.acquire("n", mockModel("negate"));
    const answers: number[][] = [];
    const runs = [1, 2, 3].map(async (x) => {
      const result = await runtime.run(chain(double.number, negate.number, double.number), given(x));
      answers.push(numbersOf(result));
    });
    for (const _ of runs) (await machine.takeOne()).pass();
    await Promise.all(runs);
    expect(answers).toEqual([[-4], [-8], [-12]]);
  });

  it("uses all workers", async () => {
    const machine = new HeldMachine("run");
    const runtime = await open(machine, 3);
    const { number: session } = await runtime.acquire("d", mockModel("double"));
    const runs = [1, 2, 3, 4].map((x) => runtime.run(chain(session), given(x)));
    const held = await machine.take(3);
    expect(new Set(held.map(({ backend }) => backend)).size).toBe(3);
    expect(runtime.stats).toEqual({ workers: 3, sessions: 1, queued: 1, running: 3 });
    for (const call of held) call.pass();
    (await machine.takeOne()).pass();
    expect((await Promise.all(runs)).map(numbersOf)).toEqual([[2], [4], [6], [8]]);
  });

  it("holds its sessions: what is given back during a run is freed after it", async () => {
    const machine = new HeldMachine("run");
    const runtime = await open(machine);
    const handle = await runtime.acquire("d", mockModel("double"));
    const running = runtime.run(chain(handle.number), given(4));
    const queued = runtime.run(chain(handle.number), given(5));
    await handle.release();
    (await machine.takeOne()).pass();
    expect(numbersOf(await running)).toEqual([8]);
    expect(liveSessions(machine)).toEqual([1]);
    (await machine.takeOne()).pass();
    expect(numbersOf(await queued)).toEqual([10]);
    await settle();
    expect(liveSessions(machine)).toEqual([0]);
    expect(machine.faults).toEqual([]);
  });

  it("of a program whose second session is gone keeps nothing of the first", async () => {
    const machine = new MockMachine(FUNCTIONS);
    const runtime = await open(machine);
    const handle = await runtime.acquire("d", mockModel("double"));
    await expect(runtime.run(chain(handle.number, 99), given(1))).rejects.toEqual(code("CLOSED"));
    await handle.release();
    expect(liveSessions(machine)).toEqual([0]);
  });

  it("fails alone", async () => {
    const machine = new MockMachine(FUNCTIONS);
    const runtime = await open(machine);
    const bad = await runtime.acquire("f", mockModel("fail"));
    const good = await runtime.acquire("d", mockModel("double"));
    const [failed, done] = await Promise.all([
      runtime.run(chain(bad.number, good.number), given(1)),
      runtime.run(chain(good.number), given(1)),
    ]);
    expect(failed.failures).toEqual(new Map([["out", code("RUN_FAILED")]]));
    expect(failed.values.size).toBe(0);
    expect(numbersOf(done)).toEqual([2]);
    expect(done.failures.size).toBe(0);
  });

  it("goes on with what does not depend on a step that fails", async () => {
    const machine = new MockMachine(FUNCTIONS);
    const runtime = await open(machine);
    const bad = await runtime.acquire("f", mockModel("fail"));
    const good = await runtime.acquire("d", mockModel("double"));
    const steps = [
      { session: bad.number, feeds: [["x", "in"]], fetches: [["y", "lost"]] },
      { session: good.number, feeds: [["x", "lost"]], fetches: [["y", "lost too"]] },
      { session: good.number, feeds: [["x", "in", [2, 0]]], fetches: [["y", "out"]] },
    ] as const;
    const result = await runtime.run({ steps, results: ["out", "lost", "lost too"] }, given(1, 2, 3));
    expect(numbersOf(result)).toEqual([6, 2]);
    expect([...result.failures.keys()]).toEqual(["lost", "lost too"]);
  });

  it("is refused when too many wait, and not for lack of a queue when a worker is free", async () => {
    const machine = new HeldMachine("run");
    const runtime = await open(machine, 1, 1);
    const { number: session } = await runtime.acquire("d", mockModel("double"));
    const runs = [1, 2].map((x) => runtime.run(chain(session), given(x)));
    await expect(runtime.run(chain(session), given(3))).rejects.toEqual(code("OVERLOADED"));
    for (const _ of runs) (await machine.takeOne()).pass();
    await Promise.all(runs);

    const unqueued = await open(new MockMachine(FUNCTIONS), 1, 0);
    const other = await unqueued.acquire("d", mockModel("double"));
    expect(numbersOf(await unqueued.run(chain(other.number), given(1)))).toEqual([2]);
  });
});

describe("a caller who gives up", () => {
  it("is answered at once and leaves the queue, and the others go on", async () => {
    const machine = new HeldMachine("run");
    const runtime = await open(machine);
    const handle = await runtime.acquire("d", mockModel("double"));
    const gaveUp = new AbortController();
    const first = runtime.run(chain(handle.number), given(1));
    const second = runtime.run(chain(handle.number), given(2), gaveUp.signal);
    const third = runtime.run(chain(handle.number), given(3));
    gaveUp.abort();
    await expect(second).rejects.toEqual(code("ABORTED"));
    expect(runtime.stats.queued).toBe(1);
    (await machine.takeOne()).pass();
    (await machine.takeOne()).pass();
    expect(numbersOf(await first)).toEqual([2]);
    expect(numbersOf(await third)).toEqual([6]);
  });

  it("during a run is answered at once; the run goes on and its sessions are freed after it", async () => {
    const machine = new HeldMachine("run");
    const runtime = await open(machine);
    const handle = await runtime.acquire("d", mockModel("double"));
    const gaveUp = new AbortController();
    const run = runtime.run(chain(handle.number), given(1), gaveUp.signal);
    const call = await machine.takeOne();
    gaveUp.abort();
    await expect(run).rejects.toEqual(code("ABORTED"));
    await handle.release();
    expect(liveSessions(machine)).toEqual([1]);
    expect(runtime.stats.running).toBe(1);
    call.pass();
    await settle();
    expect(liveSessions(machine)).toEqual([0]);
    expect(runtime.stats).toEqual({ workers: 1, sessions: 0, queued: 0, running: 0 });
  });

  it("before the run begins does not begin it", async () => {
    const machine = new MockMachine(FUNCTIONS);
    const runtime = await open(machine);
    const { number: session } = await runtime.acquire("d", mockModel("double"));
    await expect(runtime.run(chain(session), given(1), AbortSignal.abort())).rejects.toEqual(code("ABORTED"));
  });

  it("leaves nothing behind on a signal that lives on", async () => {
    const machine = new MockMachine(FUNCTIONS);
    const runtime = await open(machine);
    const { number: session } = await runtime.acquire("d", mockModel("double"));
    const { signal } = new AbortController();
    for (let x = 0; x < 3; x++) await runtime.run(chain(session), given(x), signal);
    await expect(runtime.run(chain(99), new Map(), signal)).rejects.toEqual(code("CLOSED"));
    expect(getEventListeners(signal, "abort")).toEqual([]);
  });
});

describe("a worker that dies", () => {
  it("fails what it ran and is replaced with every session in use; what waited is done by the next", async () => {
    const machine = new HeldMachine("run");
    const runtime = await open(machine);
    const double = await runtime.acquire("d", mockModel("double"));
    const negate = await runtime.acquire("n", mockModel("negate"));
    await (await runtime.acquire("gone", mockModel("double"))).release();
    const running = runtime.run(chain(double.number), given(1));
    const waiting = runtime.run(chain(double.number, negate.number), given(2));
    (await machine.takeOne()).backend.die();
    await expect(running).rejects.toEqual(code("WORKER_LOST"));
    const next = await machine.takeOne();
    next.pass();
    expect(numbersOf(await waiting)).toEqual([-4]);
    expect([...next.backend.sessions.values()]).toEqual(["double", "negate"]);
    await double.release();
    await negate.release();
    expect(liveSessions(machine)).toEqual([0]);
    expect(machine.faults).toEqual([]);
  });

  it("leaves the others at work", async () => {
    const machine = new HeldMachine("run", "start");
    const starting = open(machine, 2);
    for (const call of await machine.take(2)) call.pass();
    const runtime = await starting;
    const { number: session } = await runtime.acquire("d", mockModel("double"));
    const runs = [1, 2, 3].map((x) => runtime.run(chain(session), given(x)));
    const [first, second] = await machine.take(2);
    first?.backend.die();
    await expect(runs[0]).rejects.toEqual(code("WORKER_LOST"));
    await machine.takeOne(); // the start of another, which never comes
    second?.pass();
    (await machine.takeOne()).pass();
    expect(numbersOf(await (runs[2] ?? Promise.reject()))).toEqual([6]);
    expect(runtime.stats.workers).toBe(1);
  });

  it("during a load fails the load, and a later one succeeds on the replacement", async () => {
    const machine = new HeldMachine("create");
    const runtime = await open(machine, 2);
    const load = runtime.acquire("d", mockModel("double"));
    const [first, second] = await machine.take(2);
    first?.backend.die();
    second?.pass();
    await settle();
    for (const call of machine.held.splice(0)) call.pass();
    await expect(load).rejects.toEqual(code("WORKER_LOST"));
    await settle();
    expect(liveSessions(machine)).toEqual([0, 0]);
    machine.hold();
    const { number: session } = await runtime.acquire("d", mockModel("double"));
    expect(liveSessions(machine)).toEqual([1, 1]);
    expect(numbersOf(await runtime.run(chain(session), given(1)))).toEqual([2]);
    expect(machine.faults).toEqual([]);
  });

  it("meets loads and releases while another takes its place, and none is missed", async () => {
    const machine = new HeldMachine();
    const runtime = await open(machine);
    const kept = await runtime.acquire("d", mockModel("double"));
    const freed = await runtime.acquire("n", mockModel("negate"));
    machine.hold("create");
    machine.backends[0]?.die();
    const [one] = await machine.take(1); // the replacement makes the first of two
    const freeing = freed.release();
    const late = runtime.acquire("late", mockModel("negate"));
    machine.hold();
    one?.pass();
    const { number: session } = await late;
    await freeing;
    expect(numbersOf(await runtime.run(chain(kept.number, session), given(1)))).toEqual([-2]);
    expect([...(machine.living[0]?.sessions.values() ?? [])].sort()).toEqual(["double", "negate"]);
    expect(machine.faults).toEqual([]);
  });

  it("and whose replacement dies as it joins is replaced again", async () => {
    const machine = new HeldMachine();
    const runtime = await open(machine);
    const { number: session } = await runtime.acquire("d", mockModel("double"));
    machine.hold("create");
    machine.backends[0]?.die();
    const replacement = await machine.takeOne();
    const run = runtime.run(chain(session), given(1));
    replacement.backend.die();
    (await machine.takeOne()).pass();
    expect(numbersOf(await run)).toEqual([2]);
  });

  it("and cannot be replaced fails what waits, and the next request tries anew", async () => {
    const machine = new MockMachine(FUNCTIONS);
    const runtime = await open(machine);
    const { number: session } = await runtime.acquire("d", mockModel("double"));
    let starts = 0;
    machine.gate = ({ kind }) => {
      if (kind !== "start") return;
      starts++;
      throw new Error("no threads left");
    };
    machine.backends[0]?.die();
    const outcomes = await Promise.allSettled([
      runtime.run(chain(session), given(1)),
      runtime.run(chain(session), given(2)),
    ]);
    for (const outcome of outcomes)
      expect(outcome).toEqual({ status: "rejected", reason: code("WORKER_LOST") });
    expect(starts).toBeGreaterThan(1);
    expect(starts).toBeLessThan(10);
    await expect(runtime.acquire("n", mockModel("negate"))).rejects.toEqual(code("WORKER_LOST"));
    machine.gate = () => {};
    expect(numbersOf(await runtime.run(chain(session), given(3)))).toEqual([6]);
  });

  it("at every program is not replaced for ever", async () => {
    const machine = new MockMachine(FUNCTIONS);
    const runtime = await open(machine, 2);
    const { number: session } = await runtime.acquire("d", mockModel("double"));
    machine.gate = ({ kind, backend }) => {
      if (kind === "create") backend.die();
    };
    for (const backend of machine.living) backend.die();
    await expect(runtime.run(chain(session), given(1))).rejects.toEqual(code("WORKER_LOST"));
    await settle();
    const tried = machine.backends.length;
    await settle();
    expect(machine.backends.length).toBe(tried);
  });

  it("and comes back unable to hold what is in use is not given work", async () => {
    const machine = new MockMachine(FUNCTIONS);
    const runtime = await open(machine, 2);
    const { number: session } = await runtime.acquire("d", mockModel("double"));
    machine.gate = ({ kind }) => {
      if (kind === "create") throw new PolyheadError("LOAD_FAILED", "no memory", {});
    };
    machine.backends[0]?.die();
    await settle();
    expect(runtime.stats.workers).toBe(1);
    expect(machine.living.length).toBe(1);
    expect(numbersOf(await runtime.run(chain(session), given(1)))).toEqual([2]);
    expect(machine.faults).toEqual([]);
  });

  it("before it ever worked fails the opening, and the others are closed", async () => {
    const machine = new MockMachine(FUNCTIONS);
    let starts = 0;
    machine.gate = ({ kind }) => {
      if (kind === "start" && starts++ === 1) throw new Error("no threads left");
    };
    await expect(open(machine, 2)).rejects.toEqual(code("WORKER_LOST"));
    expect(machine.backends.map(({ state }) => state)).toEqual(["closed"]);
  });
});

describe("closing", () => {
  it("lets queued and running work finish, frees everything and refuses what comes after", async () => {
    const machine = new HeldMachine("run");
    const runtime = await open(machine);
    const handle = await runtime.acquire("d", mockModel("double"));
    const runs = [1, 2].map((x) => runtime.run(chain(handle.number), given(x)));
    const closing = runtime.close();
    expect(runtime.close()).toBe(closing);
    await expect(runtime.run(chain(handle.number), given(3))).rejects.toEqual(code("CLOSED"));
    await expect(runtime.acquire("n", mockModel("negate"))).rejects.toEqual(code("CLOSED"));
    expect(await stateOf(closing)).toBe("waiting");
    for (const _ of runs) (await machine.takeOne()).pass();
    expect((await Promise.all(runs)).map(numbersOf)).toEqual([[2], [4]]);
    await closing;
    expect(machine.backends.map(({ state }) => state)).toEqual(["closed"]);
    await handle.release();
    await expect(handle.release()).rejects.toEqual(code("CLOSED"));
    expect(machine.faults).toEqual([]);
  });

  it("ends when the last waiting caller gives up", async () => {
    const machine = new HeldMachine("run");
    const runtime = await open(machine);
    const { number: session } = await runtime.acquire("d", mockModel("double"));
    const gaveUp = new AbortController();
    const runs = [given(1), given(2)].map((values) => runtime.run(chain(session), values, gaveUp.signal));
    const call = await machine.takeOne();
    const closing = runtime.close();
    gaveUp.abort();
    for (const run of runs) await expect(run).rejects.toEqual(code("ABORTED"));
    expect(await stateOf(closing)).toBe("waiting");
    call.pass();
    await closing;
  });

  it("during a load waits for it and refuses its caller", async () => {
    const machine = new HeldMachine("create");
    const runtime = await open(machine);
    const load = runtime.acquire("d", mockModel("double"));
    const closing = runtime.close();
    expect(await stateOf(closing)).toBe("waiting");
    (await machine.takeOne()).pass();
    await expect(load).rejects.toEqual(code("CLOSED"));
    await closing;
    expect(machine.faults).toEqual([]);
  });

  it("while a worker is being replaced leaves none behind", async () => {
    const machine = new HeldMachine();
    const runtime = await open(machine);
    machine.hold("start");
    machine.backends[0]?.die();
    const start = await machine.takeOne();
    const closing = runtime.close();
    start.pass();
    await closing;
    await settle();
    expect(machine.living).toEqual([]);
    expect(machine.faults).toEqual([]);
  });

  it("ends although the only worker dies with work waiting", async () => {
    const machine = new HeldMachine("run");
    const runtime = await open(machine);
    const { number: session } = await runtime.acquire("d", mockModel("double"));
    const runs = [1, 2].map((x) => runtime.run(chain(session), given(x)));
    const call = await machine.takeOne();
    const closing = runtime.close();
    machine.gate = ({ kind }) => {
      if (kind === "start") throw new Error("no threads left");
    };
    call.backend.die();
    for (const run of runs) await expect(run).rejects.toEqual(code("WORKER_LOST"));
    await closing;
  });
});
