/**
 * Layers that run one after another as one ONNX model. The input's shape follows from the layers: the first one that
 * says something tells rank and channels, and where a linear layer behind a flattened map fixes its size, the one
 * square input that fits is found. Where several fit, the user is asked.
 */
import { PolyheadError } from "../../base/errors.js";
import type { Model } from "../../onnx/model.js";
import { formatShape, type SymbolicShape } from "../../tensor/shape.js";
import { GraphBuilder, type Value } from "./builder.js";
import { type Layer, OpenSize, SizeMismatch } from "./layer.js";
import { LAYER_RULES } from "./layers/table.js";
import { unsupported } from "./objects.js";
import { Call } from "./rule.js";

/** Square inputs are tried up to this size. */
const LARGEST_SIDE = 640;

/** Names of the axes behind the channels, by how many there are. */
const AXES: Readonly<Record<number, readonly string[]>> = {
  0: [],
  1: ["length"],
  2: ["height", "width"],
  3: ["depth", "height", "width"],
};

/** What a model is made from, beside its layers. */
export interface Source {
  /** Shape of the input. */
  readonly stated?: SymbolicShape | undefined;
  /** Shape of the input where the layers can take it. */
  readonly like?: SymbolicShape | undefined;
  /** Size of the file. */
  readonly fileBytes: number;
}

/**
 * The model of layers in a row.
 * @throws PolyheadError MODEL_UNSUPPORTED, MODEL_MALFORMED; INVALID_ARGUMENT when the shape of the input has to be stated
 */
export function assemble(
  layers: readonly Layer[],
  { stated, like, fileBytes }: Source,
  notes: string[],
): Model {
  const built = stated
    ? run(layers, stated, notes)
    : ((like && runLike(layers, like, notes)) ?? runInferred(layers, notes));
  return built.builder.finish(built.value, fileBytes);
}

/** Undefined when the layers take no such input. */
function runLike(layers: readonly Layer[], like: SymbolicShape, notes: string[]): Built | undefined {
  // Any number of rows, and names for all that is open.
  const shape = like.map((size, axis) =>
    axis === 0 ? "batch" : typeof size === "number" || /^[A-Za-z_]\w*$/.test(size) ? size : `axis_${axis}`,
  );
  const own: string[] = [];
  try {
    const built = run(layers, shape, own);
    notes.push(...own);
    return built;
  } catch (thrown) {
    if (thrown instanceof PolyheadError) return undefined;
    throw thrown;
  }
}

interface Built {
  readonly builder: GraphBuilder;
  readonly value: Value;
}

function run(layers: readonly Layer[], shape: SymbolicShape, notes: string[]): Built {
  const builder = new GraphBuilder(shape);
  let value = builder.input;
  for (const layer of layers) {
    builder.enter(layer.path);
    const rule = LAYER_RULES.get(layer.kind);
    if (!rule) throw unsupported(`No layer ${layer.kind} can be imported.`, { kind: layer.kind });
    value = rule.apply(new Call(builder, layer, value, notes));
  }
  return { builder, value };
}

function runInferred(layers: readonly Layer[], notes: string[]): Built {
  const shape = inferShape(layers);
  const [batch = "batch", channels = 0, ...spatial] = shape;
  try {
    if (channels !== UNKNOWN) return run(layers, shape, notes);
    return run(layers, withChannels(layers, shape), notes);
  } catch (thrown) {
    if (!(thrown instanceof OpenSize) || spatial.length === 0) throw thrown;
    const sides = fittingSides(layers, shape);
    const [side] = sides;
    if (side === undefined || sides.length > 1) throw openSides(thrown, shape, sides);
    const square = [batch, side.channels, ...spatial.map(() => side.size)];
    notes.push(
      `The input ${formatShape(square)} was found from the sizes of the layers, as the only square one that fits; another is stated with --input-shape.`,
    );
    return run(layers, square, notes);
  }
}

/** Stands for channels that no layer has told yet. */
const UNKNOWN = "channels";

/** The shape of the input as far as the layers tell it. */
function inferShape(layers: readonly Layer[]): SymbolicShape {
  let rank: number | undefined;
  let channels: number | undefined;
  for (const layer of layers) {
    const rule = LAYER_RULES.get(layer.kind);
    const says = rule?.expects?.(layer) ?? {};
    if (says.trailing) return ["batch", ...positions(rank, says.trailing.length), ...says.trailing];
    if (says.last !== undefined && rank === undefined && channels === undefined) return ["batch", says.last];
    rank ??= says.rank;
    channels ??= says.channels;
    if (rank !== undefined && channels !== undefined) break;
    // A flattened vector is itself, so that what flattens first and says no more takes a vector.
    const isFlat = layer.kind === "Flatten" && rank === undefined && channels === undefined;
    if (rule?.keeps === undefined && !isFlat) break;
    if (rule?.keeps === "channels" && rank === undefined) break;
  }
  if (rank === undefined && channels !== undefined) return ["batch", channels];
  if (rank === undefined)
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      "Nothing in the file tells the shape of the input; state it: --input-shape batch,512 for vectors, batch,512,height,width for maps.",
    );
  return ["batch", channels ?? UNKNOWN, ...(AXES[rank - 2] ?? [])];
}

/** Axes between the batch and those that a layer normalises. */
function positions(rank: number | undefined, trailing: number): string[] {
  return Array.from({ length: Math.max(0, (rank ?? 0) - 1 - trailing) }, (_, at) => `axis_${at + 1}`);
}

/** The shape with the channels that a linear layer behind a flattening asks for: as many times one as it takes. */
function withChannels(layers: readonly Layer[], shape: SymbolicShape): SymbolicShape {
  try {
    run(layers, shape.with(1, 1), []);
  } catch (thrown) {
    if (thrown instanceof SizeMismatch && thrown.expected % thrown.got === 0)
      return shape.with(1, thrown.expected / thrown.got);
    throw thrown;
  }
  throw new PolyheadError(
    "INVALID_ARGUMENT",
    `Nothing in the file tells the channels of the input; state its shape: --input-shape ${["batch", 512, ...shape.slice(2)].join(",")}.`,
  );
}

interface Side {
  readonly size: number;
  readonly channels: number;
}

/** All square inputs that go through the layers. */
function fittingSides(layers: readonly Layer[], shape: SymbolicShape): Side[] {
  const sides: Side[] = [];
  for (let size = 1; size <= LARGEST_SIDE; size++) {
    const square = [shape[0] ?? "batch", shape[1] ?? UNKNOWN, ...shape.slice(2).map(() => size)];
    try {
      const full = square[1] === UNKNOWN ? withChannels(layers, square) : square;
      run(layers, full, []);
      sides.push({ size, channels: Number(full[1]) });
    } catch (thrown) {
      if (!(thrown instanceof PolyheadError)) throw thrown;
    }
    if (sides.length > MOST_SHOWN) break;
  }
  return sides;
}

const MOST_SHOWN = 4;

function openSides(cause: OpenSize, shape: SymbolicShape, sides: readonly Side[]): PolyheadError {
  const flags = sides.slice(0, MOST_SHOWN).map(({ size, channels }) => {
    const full = [shape[0], channels, ...shape.slice(2).map(() => size)];
    return `--input-shape ${full.join(",")}`;
  });
  if (flags.length === 0) return cause;
  return new PolyheadError(
    "INVALID_ARGUMENT",
    `The layers fit several sizes of input; say which: ${flags.join(", or ")}${sides.length > MOST_SHOWN ? ", and more" : ""}.`,
    { expected: flags },
    { cause },
  );
}
