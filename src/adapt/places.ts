/**
 * The places of taps as rows: what a head reads at each of them, and what the new backbone has at the same ones. The
 * maps of the new backbone are brought to the height and width of the head's by the very nodes that the adapter has.
 */
import { PolyheadError } from "../base/errors.js";
import { combinedSeed, seededRandom, shuffled } from "../base/random.js";
import type { Tap } from "../onnx/metadata.js";
import type { OpenModel } from "../onnx/runner.js";
import { type Matrix, zeros } from "../teach/linear-algebra.js";
import { type Pooling, pooled } from "../teach/pooling.js";
import { type Tensor, toNumbers } from "../tensor/tensor.js";
import { areaOf, resizingModel } from "./adapter-model.js";
import type { HeadReading } from "./head-reading.js";

/** Places of all examples together that a map is fitted on: this many, or so many for each feature; more tell little more. */
const PLACES = 1500;
const PLACES_PER_FEATURE = 8;

interface Offered {
  readonly tap: Tap;
  readonly pooling: Pooling;
}

/** Whether a tap can be mapped to what a head reads: anything to a vector, maps to maps, tokens to as many tokens. */
export function canStandIn(
  { kind, tap }: HeadReading,
  offer: Pick<Offered, "tap"> & Partial<Offered>,
): boolean {
  const { shape } = offer.tap;
  if (kind === "vector" || kind === "pooled") return true;
  if (kind === "tokens")
    return shape.length === 3 && typeof shape[1] === "number" && shape[1] === tap.shape[1];
  return shape.length === 4 && areaOf(offer.tap, offer.pooling) !== undefined && areaOf(tap) !== undefined;
}

/** The places of each example that are looked at, all of them where they are few; the same for the same seed. */
export function placesIn({ kind, tap, width }: HeadReading, examples: number, seed: number): number[][] {
  const wanted = Math.max(PLACES, PLACES_PER_FEATURE * width);
  const area = areaOf(tap);
  const all =
    kind === "map" ? (area?.height ?? 1) * (area?.width ?? 1) : kind === "tokens" ? Number(tap.shape[1]) : 1;
  const each = Math.min(all, Math.max(1, Math.ceil(wanted / Math.max(1, examples))));
  const places = [...Array(all).keys()];
  return Array.from({ length: examples }, (_, example) =>
    each === all
      ? places
      : shuffled(places, seededRandom(combinedSeed(seed, example)))
          .slice(0, each)
          .sort((a, b) => a - b),
  );
}

/** The maps of the new backbone at the height and width of the head's, channels first; other taps as they are. */
export async function sizedSources(
  tensors: readonly Tensor[],
  { tap, pooling }: Offered,
  reading: HeadReading,
  open: OpenModel,
): Promise<readonly Tensor[]> {
  if (reading.kind !== "map") return tensors;
  const opened = await open(resizingModel(tap, pooling, reading.tap), "all");
  try {
    const sized: Tensor[] = [];
    for (const tensor of tensors) {
      const [made] = (await opened.run(new Map([[tap.name, tensor]]))).values();
      if (made) sized.push(made);
    }
    return sized;
  } finally {
    await opened.close();
  }
}

/**
 * A row for each place of each example.
 * @param tensors of each example: maps [1, C, H, W], tokens [1, T, C], or what is pooled to one row
 */
export function rowsAt(
  tensors: readonly Tensor[],
  places: readonly (readonly number[])[],
  kind: HeadReading["kind"],
  pooling: Pooling,
): Matrix {
  const { channels } = pooling;
  const made = zeros(
    places.reduce((sum, { length }) => sum + length, 0),
    channels,
  );
  let at = 0;
  tensors.forEach((tensor, example) => {
    if (kind === "vector" || kind === "pooled") {
      made.data.set(pooled(tensor, pooling), at++ * channels);
      return;
    }
    const numbers = toNumbers(tensor);
    const [step, between] = kind === "map" ? [1, numbers.length / channels] : [channels, 1];
    for (const place of places[example] ?? []) {
      for (let channel = 0; channel < channels; channel++)
        made.data[at * channels + channel] = numbers[place * step + channel * between] ?? 0;
      at++;
    }
  });
  return made;
}

/** @throws PolyheadError DATA_MALFORMED for a feature that is not finite */
export function requireFinite(tensors: readonly Tensor[]): void {
  tensors.forEach((tensor, example) => {
    const bad = toNumbers(tensor).find((value) => !Number.isFinite(value));
    if (bad === undefined) return;
    throw new PolyheadError(
      "DATA_MALFORMED",
      `Example ${example} has the feature ${bad}; expected finite numbers. See whether the preprocessing is each backbone's own.`,
      { example },
    );
  });
}
