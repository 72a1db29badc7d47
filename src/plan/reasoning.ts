/**
 * Which way to a head, told from the graphs alone: whether the backbone makes what the head reads, and if not, how what it
 * makes differs. Nothing is run. What only data can tell is said to be unknown rather than guessed.
 */

import { readingsOf } from "../adapt/head-reading.js";
import { canStandIn } from "../adapt/places.js";
import { GraphIndex } from "../onnx/graph.js";
import { type Identity, identify } from "../onnx/identity.js";
import { readMetadata, type Tap } from "../onnx/metadata.js";
import type { Model } from "../onnx/model.js";
import { inferTypes } from "../onnx/shapes.js";
import { shareReport } from "../onnx/share.js";
import { formatShape, type SymbolicShape } from "../tensor/shape.js";

/** The three ways to a new head. */
export type Way = "swap" | "adapt" | "tune";

/** What the graphs say. */
export interface Finding {
  readonly way: Way;
  /** Why, in sentences that a person can act on. */
  readonly reasons: readonly string[];
  /** What only data would tell. */
  readonly unknown: readonly string[];
  /** Taps of the backbone by the head's inputs for a forced swap; undefined where not even shapes fit. */
  readonly sameShape: Readonly<Record<string, string>> | undefined;
}

/** What a backbone offers. */
interface Offer {
  readonly name: string;
  readonly identity: Identity;
  readonly shape: SymbolicShape | undefined;
}

/**
 * The way that the graphs suggest.
 * @param own the backbone that the head was made for, where it is at hand
 */
export async function reasonFromGraphs(backbone: Model, head: Model, own?: Model): Promise<Finding> {
  const { taps = [] } = readMetadata(head);
  const inputs = new GraphIndex(head.graph).inputs;
  const identities = new Set((await identify(backbone)).values());
  const offers = await offersOf(backbone);
  if (taps.length < inputs.length)
    return unknownOrigin(
      inputs.map(({ name }) => name),
      offers,
    );
  const missing = taps.filter(({ identity }) => !identities.has(identity));
  if (missing.length === 0) {
    return {
      way: "swap",
      reasons: taps.map(
        ({ name, identity }) =>
          `The backbone makes ${quoted(name)} of identity ${brief(identity)}, bit for bit what the head was made for: it fits as it is.`,
      ),
      unknown: [],
      sameShape: undefined,
    };
  }
  const pairs = taps.map(
    (tap, place) =>
      [inputs[place]?.name ?? "", offers.find(({ shape }) => shape && sameRow(shape, tap.shape))] as const,
  );
  const sameShape = pairs.every(([, offer]) => offer)
    ? Object.fromEntries(pairs.map(([input, offer]) => [input, offer?.name ?? ""]))
    : undefined;
  const reasons = missing.map((tap) => differenceOf(tap, offers));
  if (own) reasons.push(...(await inCommon(backbone, own)));
  const problem = adaptable(head, offers);
  if (problem !== undefined) return { way: "tune", reasons: [...reasons, problem], unknown: [], sameShape };
  return {
    way: "adapt",
    reasons,
    unknown: [
      "How much of the head survives an adapter: give images with --data, classes or not, and it is measured.",
    ],
    sameShape,
  };
}

/** The backbone's taps, or its outputs where it names none. */
async function offersOf(backbone: Model): Promise<Offer[]> {
  const identities = await identify(backbone);
  const types = inferTypes(backbone);
  const names =
    readMetadata(backbone).taps?.map(({ name }) => name) ?? new GraphIndex(backbone.graph).outputNames;
  return names.map((name) => ({ name, identity: identities.get(name) ?? "", shape: types.get(name)?.shape }));
}

function unknownOrigin(inputs: readonly string[], offers: readonly Offer[]): Finding {
  return {
    way: "tune",
    reasons: [
      `The head does not say what it reads (${inputs.map(quoted).join(", ")}), so that nothing proves that it fits; the backbone offers ${listed(offers)}.`,
      "If you know which backbone it was trained on, import it for that one, and plan again.",
    ],
    unknown: ["Which features the head was trained on."],
    sameShape: undefined,
  };
}

function differenceOf(tap: Tap, offers: readonly Offer[]): string {
  const same = offers.find(({ shape }) => shape && sameRow(shape, tap.shape));
  const reads = `The head reads ${quoted(tap.name)} ${formatShape(tap.shape)} of identity ${brief(tap.identity)}`;
  if (same) {
    return `${reads}; the backbone's ${quoted(same.name)} has that shape but the identity ${brief(same.identity)}: other features, of which the head would talk nonsense with confidence.`;
  }
  return `${reads}; the backbone makes nothing of that shape, but ${listed(offers)}.`;
}

/** How much of the two backbones is the same computation. */
async function inCommon(backbone: Model, own: Model): Promise<string[]> {
  const { segments, parameters } = await shareReport([
    { name: "backbone", model: backbone },
    { name: "own", model: own },
  ]);
  const common = segments.find(({ usedBy }) => usedBy.length === 2);
  if (!common) return ["The two backbones have no layer in common."];
  const share = (2 * common.parameters) / parameters.separate;
  return [
    `The two backbones have their first ${common.nodes} nodes in common, ${(100 * share).toFixed(0)} % of their parameters; run together, these run once.`,
  ];
}

/** Why no adapter can be fitted for a head; undefined when one can. */
function adaptable(head: Model, offers: readonly Offer[]): string | undefined {
  for (const reading of readingsOf(head)) {
    const found = offers.some(
      ({ name, identity, shape }) =>
        shape && canStandIn(reading, { tap: { name, dtype: "float32", shape, identity } }),
    );
    if (!found)
      return `The head reads ${quoted(reading.tap.name)} as ${reading.kind}, and no tap of the backbone can be mapped to that: maps take maps of known height and width, tokens as many tokens.`;
  }
  return undefined;
}

/** Equal shapes of one row; open sizes fit any. */
function sameRow(a: SymbolicShape, b: SymbolicShape): boolean {
  const fits = (one: number | string | undefined, other: number | string | undefined) =>
    typeof one === "string" || typeof other === "string" || one === other;
  return a.length === b.length && a.every((size, axis) => axis === 0 || fits(size, b[axis]));
}

function listed(offers: readonly Offer[]): string {
  return offers.map(({ name, shape }) => `${quoted(name)} ${formatShape(shape ?? [])}`).join(", ");
}

function quoted(name: string): string {
  return JSON.stringify(name);
}

function brief(identity: Identity): string {
  return identity.slice(0, 12);
}
