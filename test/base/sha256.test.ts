/** SHA-256 by Node and in JavaScript: the same, as its standard says. */
import { createHash, randomBytes } from "node:crypto";
import { afterEach, describe, expect, it, vi } from "vitest";

/** From FIPS 180-2, appendix B. */
const PUBLISHED = {
  abc: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
  abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq:
    "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
};

/** The module as it is loaded where Node's own SHA-256 is to be had, or is not. */
async function load(getBuiltinModule: unknown) {
  vi.resetModules();
  vi.stubGlobal("process", { ...process, getBuiltinModule });
  return import("../../src/base/sha256.js");
}

afterEach(() => {
  vi.unstubAllGlobals();
});

describe.each([
  ["by Node", process.getBuiltinModule],
  ["in JavaScript", undefined],
])("SHA-256 %s", (_, getBuiltinModule) => {
  it("is what the standard says", async () => {
    const { sha256, sha256Aside } = await load(getBuiltinModule);
    for (const [text, digest] of Object.entries(PUBLISHED)) {
      expect(sha256(text)).toBe(digest);
      expect(await sha256Aside(new TextEncoder().encode(text))).toBe(digest);
    }
    expect(sha256("ä")).toBe(sha256(new Uint8Array([0xc3, 0xa4])));
  });

  it.each([0, 1, 2 ** 18, 2 ** 18 + 1, 2 ** 20])(
    "of %i bytes is the same at once and aside",
    async (length) => {
      const { sha256, sha256Aside } = await load(getBuiltinModule);
      const whole = new Uint8Array(randomBytes(length + 3));
      const part = whole.subarray(3);
      const digest = createHash("sha256").update(part).digest("hex");
      expect([sha256(part), await sha256Aside(part)]).toEqual([digest, digest]);
    },
  );
});
