/** The main job as people start it, from nothing and again. */
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { commandPage, shapeLike } from "../docs/command-page.js";
import { polyhead } from "./command.js";

interface Demo {
  readonly photos: readonly {
    readonly photo: string;
    readonly detections: readonly { readonly label: string }[];
    readonly classes: readonly { readonly label: string }[];
    readonly cached: boolean;
  }[];
}

describe("polyhead demo", () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "demo-"));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  const start = () => polyhead("demo", "--json", "--cache", join(folder, "cache"), "-o", join(folder, "out"));

  it("prepares, detects, switches and classifies from cached features", { timeout: 300_000 }, async () => {
    const first = await start();
    expect(first.stderr).toMatch(/proved on \d+ random inputs: equal bit for bit/);
    const accuracy = /taught 14 food groups .*: (\d+\.\d) % right in 5-fold/.exec(first.stderr)?.[1];
    expect(Number(accuracy)).toBeGreaterThan(55);
    const { photos }: Demo = JSON.parse(first.stdout);
    expect(photos.every(({ cached }) => cached)).toBe(true);
    const apples = photos.find(({ photo }) => photo === "E003.jpeg");
    expect(apples?.classes[0]?.label).toBe("fruits");
    expect(apples?.detections.map(({ label }) => label)).toContain("apple");
    expect((await readdir(join(folder, "out"))).sort()).toEqual(
      photos.map(({ photo }) => photo.replace("jpeg", "png")).sort(),
    );

    const [example] = (await commandPage()).find(({ title }) => title === "demo")?.examples ?? [];
    expect(example?.words).toEqual(["demo", "-o", "drawn", "--cache", "prepared"]);
    const { document } = example ?? {};
    expect(shapeLike(document, JSON.parse(first.stdout))).toEqual(shapeLike(document, document));

    const second = await start();
    expect(second.stderr).toMatch(/prepared models are in/);
    const again: Demo = JSON.parse(second.stdout);
    expect(again.photos.map(({ classes, detections }) => ({ classes, detections }))).toEqual(
      photos.map(({ classes, detections }) => ({ classes, detections })),
    );
  });
});
