/** Memory that is freed at once or kept for its next use. */
import { describe, expect, it } from "vitest";
import { freeNow, keepMemory, keptMemory } from "../../src/base/memory.js";

const MIB = 2 ** 20;

/** Takes everything out that earlier tests have left. */
function empty(): void {
  for (let size = 2 ** 16; size <= 2 ** 25; size = Math.ceil(size * 1.5)) while (keptMemory(size));
}

describe("memory", () => {
  it("is freed when a view has all of it, and left alone when somebody else may use the rest", () => {
    const whole = new Uint8Array(MIB);
    freeNow(whole);
    expect(whole.length).toBe(0);

    const shared = new Uint8Array(MIB);
    freeNow(shared.subarray(1));
    expect(shared.length).toBe(MIB);
    freeNow(new Uint8Array(0));
    const others = new Uint8Array(new SharedArrayBuffer(64));
    freeNow(others);
    expect(others.length).toBe(64);
  });

  it("is not taken from Node's pool of small buffers", () => {
    const [one, two] = [Buffer.from("one"), Buffer.from("two")];
    freeNow(one);
    expect([one.toString(), two.toString()]).toEqual(["one", "two"]);
  });

  it("is kept for a use of about its size, the closest first, and handed out once", () => {
    empty();
    const [small, large] = [new ArrayBuffer(MIB), new ArrayBuffer(1.5 * MIB)];
    keepMemory(large);
    keepMemory(small);
    expect(keptMemory(2 * MIB)).toBeUndefined();
    expect(keptMemory(MIB / 4)).toBeUndefined();
    expect(keptMemory(MIB - 8)).toBe(small);
    expect(keptMemory(MIB - 8)).toBe(large);
    expect(keptMemory(MIB - 8)).toBeUndefined();
  });

  it("is freed when too much is kept, the oldest first", () => {
    empty();
    const buffers = Array.from({ length: 12 }, () => new ArrayBuffer(MIB));
    for (const each of buffers) keepMemory(each);
    expect(buffers.slice(0, 4).map((each) => each.byteLength)).toEqual([0, 0, 0, 0]);
    expect(buffers.slice(4).every(({ byteLength }) => byteLength === MIB)).toBe(true);
    keepMemory(new ArrayBuffer(9 * MIB));
    expect(buffers.every(({ byteLength }) => byteLength === 0)).toBe(true);
    expect(keptMemory(9 * MIB)).toBeUndefined();
  });
});
