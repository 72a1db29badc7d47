/** Who is let through, who waits, who is turned away. */
import { describe, expect, it } from "vitest";
import { Turnstile } from "../../src/server/turnstile.js";

/** A task that ends when it is told to. */
function task() {
  let end: () => void = () => {};
  const ended = new Promise<void>((resolve) => {
    end = resolve;
  });
  const state = { begun: false, end: () => end() };
  return Object.assign(state, {
    run: async () => {
      state.begun = true;
      await ended;
    },
  });
}
const turn = () => new Promise((resolve) => setImmediate(resolve));

describe("a turnstile", () => {
  it("lets so many through, keeps so many waiting in their order, and turns away the rest", async () => {
    const stile = new Turnstile(2, 1);
    const [a, b, c] = [task(), task(), task()];
    const passing = [a, b, c].map(({ run }) => stile.pass(run));
    await turn();
    expect([a, b, c].map(({ begun }) => begun)).toEqual([true, true, false]);
    expect(() => stile.admit()).toThrow(expect.objectContaining({ code: "OVERLOADED" }));
    await expect(stile.pass(async () => 1)).rejects.toMatchObject({ code: "OVERLOADED" });
    a.end();
    await turn();
    expect(c.begun).toBe(true);
    b.end();
    c.end();
    await Promise.all(passing);
    expect(await stile.pass(async () => 2)).toBe(2);
  });

  it("goes on after a task that failed, and past callers who have gone", async () => {
    const stile = new Turnstile(1, 2);
    const failing = stile.pass(async () => {
      await turn();
      throw new Error("broken");
    });
    let isRun = false;
    const gone = stile.pass(async () => {
      isRun = true;
    }, AbortSignal.abort());
    await expect(failing).rejects.toThrow("broken");
    await expect(gone).rejects.toMatchObject({ code: "ABORTED" });
    expect(isRun).toBe(false);
    expect(await stile.pass(async () => 3)).toBe(3);
  });
});
