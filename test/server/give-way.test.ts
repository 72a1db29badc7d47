/** Loads beside requests: they let these go first, and come to an end however many there are. */
import { afterEach, describe, expect, it, vi } from "vitest";
import { giveWay } from "../../src/server/give-way.js";

afterEach(() => {
  vi.useRealTimers();
});

/** Whether it is over at once, and after a second. */
async function isOver(running: number): Promise<[atOnce: boolean, later: boolean]> {
  vi.useFakeTimers();
  let isDone = false;
  void giveWay({ work: { running, queued: 0 } }).then(() => {
    isDone = true;
  });
  await vi.advanceTimersByTimeAsync(0);
  const atOnce = isDone;
  await vi.advanceTimersByTimeAsync(1000);
  return [atOnce, isDone];
}

describe("giving way", () => {
  it("takes no time where no request is under way", async () => {
    expect(await isOver(0)).toEqual([true, true]);
  });

  it("leaves time to requests, and no more than a moment", async () => {
    expect(await isOver(1)).toEqual([false, true]);
  });
});
