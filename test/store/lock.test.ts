/** The lock between changes: kept where they follow one another, given up for those who wait, and never held twice. */
import { execFile, spawn } from "node:child_process";
import { mkdtemp, readdir, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { promisify } from "node:util";
import fc from "fast-check";
import { afterEach, describe, expect, it, onTestFinished, vi } from "vitest";
import { Claims } from "../../src/store/claims.js";
import { type Held, Lock } from "../../src/store/lock.js";
import { temporaryFolder } from "./samples.js";

const run = promisify(execFile);
const MODULE = new URL("../../dist/store/lock.js", import.meta.url).href;

const lockIn = (folder: string, patience = 30_000) =>
  new Lock(join(folder, "claims"), join(folder, "unfinished"), patience);
const claimsIn = (folder: string) => readdir(join(folder, "claims"));

/** A process that has a lock on the folder that is its first argument. */
const program = (folder: string, body: string) => [
  "--input-type=module",
  "-e",
  `import { Lock } from ${JSON.stringify(MODULE)};
   const lock = new Lock(process.argv[1] + "/claims", process.argv[1] + "/unfinished", 30_000);
   const nothing = async () => {};
   ${body}`,
  folder,
];

describe("several locks on one folder", () => {
  const step = fc.record({ lock: fc.nat(2), pause: fc.nat(3), work: fc.nat(2), fails: fc.boolean() });

  it("never work at once, and one that stays held was nobody else's in between", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 20 }), async (steps) => {
        const folder = await mkdtemp(join(tmpdir(), "lock-"));
        const locks = [lockIn(folder), lockIn(folder), lockIn(folder)];
        const log: { held: Held; lock: number }[] = [];
        let inside = 0;
        const ends = [];
        for (const { lock, pause, work, fails } of steps) {
          const done = locks[lock]?.run(async (held) => {
            expect(++inside).toBe(1);
            log.push({ held, lock });
            await wait(work);
            await held.confirm();
            inside--;
            if (fails) throw new RangeError("as it was to be");
          });
          ends.push(fails ? expect(done).rejects.toBeInstanceOf(RangeError) : done);
          if (pause > 0) await wait(pause);
        }
        await Promise.all(ends);
        expect(log).toHaveLength(steps.length);
        const holds = log.filter(({ held }, at) => log[at - 1]?.held !== held);
        expect(new Set(holds.map(({ held }) => held)).size).toBe(holds.length);
        await rm(folder, { recursive: true });
      }),
      { numRuns: 25 },
    );
  }, 120_000);

  it("all get their turn, however much there is to do under one of them", async () => {
    const folder = await temporaryFolder();
    const busy = lockIn(folder);
    let isOver = false;
    const forever = (async () => {
      while (!isOver) await busy.run(async () => {});
    })();
    for (let turn = 0; turn < 3; turn++) expect(await lockIn(folder).run(async () => turn)).toBe(turn);
    isOver = true;
    await forever;
  });
});

describe("a lock", () => {
  afterEach(() => {
    vi.useRealTimers();
  });

  it("is kept where changes follow one another, and given back in the end", async () => {
    const folder = await temporaryFolder();
    const lock = lockIn(folder);
    const holds: Held[] = [];
    const work = async (held: Held) => void holds.push(held);
    await lock.run(work);
    expect(await claimsIn(folder)).toEqual([]);
    vi.useFakeTimers({ toFake: ["performance"] });
    await Promise.all([lock.run(work), lock.run(work), lock.run(work)]);
    await lock.run(work);
    vi.useRealTimers();
    expect(new Set(holds.slice(1)).size).toBe(1);
    while ((await claimsIn(folder)).length > 0) await wait(10);
    await lock.run(work);
    expect(holds.at(-1)).not.toBe(holds.at(-2));
  });

  it("whose claim was taken away is not believed to be held", async () => {
    const folder = await temporaryFolder();
    const lock = lockIn(folder);
    const holds = new Set<Held>();
    const work = async (held: Held) => void holds.add(held);
    await Promise.all([lock.run(work), lock.run(work), lock.run(work)]);
    for (const name of await claimsIn(folder)) await rm(join(folder, "claims", name));
    while (holds.size < 2) {
      await lock.run(work);
      await wait(10);
    }
  });

  it("waits for no wish of somebody who has gone", async () => {
    const folder = await temporaryFolder();
    await lockIn(folder).run(async () => {});
    const wish = (time: number) =>
      join(folder, "claims", `${String(time).padStart(15, "0")}.00000000-0000-4000-8000-000000000000`);
    const [old, fresh] = [wish(1), wish(2)];
    await writeFile(old, "");
    await utimes(old, new Date(0), new Date(0));
    await writeFile(fresh, "");
    expect(await lockIn(folder).run(async () => "done")).toBe("done");
    expect(await lockIn(folder, 0).run(async () => "at once")).toBe("at once");
    expect(await claimsIn(folder)).toEqual([basename(fresh)]);
  });
});

describe("wishes", () => {
  const ages = (most: number) => fc.integer({ min: -most, max: most });
  const wish = fc.record({ made: fc.nat(10_000), age: fc.oneof(ages(200), ages(20_000)) });

  it("let one go first, and count for 10 seconds", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(wish, { selector: ({ made }) => made, maxLength: 6 }),
        async (wishes) => {
          const folder = await mkdtemp(join(tmpdir(), "claims-"));
          const claims = new Claims(folder, folder);
          vi.useFakeTimers({ toFake: ["Date"] });
          const named = wishes.map(({ made, age }) => {
            const name = `${String(made).padStart(15, "0")}.00000000-0000-4000-8000-000000000000`;
            return { name, path: join(folder, name), age };
          });
          for (const { path, age } of named) {
            await writeFile(path, "");
            await utimes(path, (Date.now() - age) / 1000, (Date.now() - age) / 1000);
          }
          // Times of files may be cut to whole milliseconds.
          const counting = named.filter(({ age }) => Math.abs(age) < 9990).length;
          const rubbish = named.filter(({ age }) => Math.abs(age) > 10_010);
          const awaited = named
            .filter(({ age }) => Math.abs(age) < 240)
            .sort((a, b) => (a.name < b.name ? -1 : 1));
          const look = await claims.look();
          const left = await readdir(folder);
          if (counting > 0) expect(look.isWanted).toBe(true);
          if (rubbish.length === wishes.length) expect(look.isWanted).toBe(false);
          if (awaited.length > 0) expect(look.isEarlier).toBe(true);
          expect(rubbish.filter(({ name }) => left.includes(name))).toEqual([]);
          expect(left.length).toBeGreaterThanOrEqual(counting);
          for (const [at, { name }] of awaited.entries()) {
            const { isEarlier, holder } = await claims.look({ wish: name });
            expect([isEarlier || at === 0, holder]).toEqual([true, undefined]);
          }
          const [first] = awaited;
          const others = named.filter(({ name, age }) => first && name < first.name && Math.abs(age) < 260);
          if (first && others.length === 0)
            expect((await claims.look({ wish: first.name })).isEarlier).toBe(false);
          vi.useRealTimers();
          await rm(folder, { recursive: true });
        },
      ),
      {
        numRuns: 60,
        examples: [[[1, 2, 3].map((made) => ({ made, age: 0 }))]],
      },
    );
  });
});

describe("a process", () => {
  it.each([
    ["at its end", ""],
    ["by its own will", "process.exit(0);"],
  ])("that ends %s leaves nothing behind", async (_, end) => {
    const folder = await temporaryFolder();
    const changing = `await Promise.all(Array.from({ length: 5 }, () => lock.run(nothing))); ${end}`;
    await run(process.execPath, program(folder, changing));
    expect(await claimsIn(folder)).toEqual([]);
  });

  it("that is killed while it keeps the lock is in nobody's way, and neither is one that works all the time", async () => {
    const folder = await temporaryFolder();
    const working = `for (let at = 0; ; at++) { await lock.run(nothing); if (at === 5) console.log("busy"); }`;
    const child = spawn(process.execPath, program(folder, working), { stdio: ["ignore", "pipe", "inherit"] });
    onTestFinished(() => {
      child.kill("SIGKILL");
    });
    await new Promise((resolve) => child.stdout.once("data", resolve));
    const lock = lockIn(folder);
    for (let turn = 0; turn < 3; turn++) expect(await lock.run(async () => turn)).toBe(turn);
    const ended = new Promise((resolve) => child.once("close", resolve));
    child.kill("SIGKILL");
    await ended;
    expect(await lock.run(async () => "mine")).toBe("mine");
  });
});
