/** Rows that training is given, on top of those of images: some of them, those in memory, and what a frozen stem makes. */
import { PolyheadError } from "../base/errors.js";
import type { Random } from "../base/random.js";
import type { Row, RowSource } from "../data/rows.js";
import type { FeatureCache } from "../teach/feature-cache.js";
import { byteLength } from "../tensor/dtype.js";
import { float32, type Tensor } from "../tensor/tensor.js";

/** Some rows of a source, in the order given. */
export class SelectedRows<Target> implements RowSource<Target> {
  readonly count: number;
  readonly #rows: RowSource<Target>;
  readonly #places: readonly number[];

  constructor(rows: RowSource<Target>, places: readonly number[]) {
    this.#rows = rows;
    this.#places = places;
    this.count = places.length;
  }

  row(example: number, random: Random): Promise<Row<Target>> {
    return this.#rows.row(this.#places[example] ?? -1, random);
  }
}

/** Vectors in memory. */
export class VectorRows<Target> implements RowSource<Target> {
  readonly count: number;
  readonly #vectors: readonly Float32Array[];
  readonly #targets: readonly Target[];

  constructor(vectors: readonly Float32Array[], targets: readonly Target[]) {
    this.#vectors = vectors;
    this.#targets = targets;
    this.count = vectors.length;
  }

  async row(example: number): Promise<Row<Target>> {
    const values = this.#vectors[example];
    if (!values) throw new PolyheadError("INTERNAL", `There is no row ${example} of ${this.count}.`, {});
    return { x: float32([1, values.length], values), target: this.#targets[example] as Target };
  }
}

/** How rows go through a stem. */
export interface StemOptions {
  /** What the stem makes of a row; undefined where rows are taken as they are. */
  readonly run?: ((x: Tensor) => Promise<Tensor>) | undefined;
  /** SHA-256 of each example, for the cache. */
  readonly digests: readonly string[];
  /** Keeps what the stem made on disk. */
  readonly cache?: FeatureCache | undefined;
  /** Bytes of rows that are kept in memory; 1 GiB by default. */
  readonly memory?: number | undefined;
}

/**
 * Rows that are the same whenever they are asked for, once computed kept in memory as far as there is room, and on disk.
 * What is made by a stem need not be made again in every epoch, because nothing in the stem changes.
 */
export class StemRows<Target> implements RowSource<Target> {
  readonly count: number;
  readonly #rows: RowSource<Target>;
  readonly #options: StemOptions;
  readonly #kept = new Map<number, Row<Target>>();
  #room: number;

  constructor(rows: RowSource<Target>, options: StemOptions) {
    this.#rows = rows;
    this.#options = options;
    this.#room = options.memory ?? 2 ** 30;
    this.count = rows.count;
  }

  async row(example: number, random: Random): Promise<Row<Target>> {
    const known = this.#kept.get(example);
    if (known) return known;
    const made = await this.#make(example, random);
    const bytes = byteLength(made.x.dtype, made.x.data.length);
    if (bytes <= this.#room && !this.#kept.has(example)) {
      this.#room -= bytes;
      this.#kept.set(example, made);
    }
    return made;
  }

  async #make(example: number, random: Random): Promise<Row<Target>> {
    const { run, cache, digests } = this.#options;
    const digest = digests[example] ?? "";
    const row = await this.#rows.row(example, random);
    if (!run) return row;
    const cached = await cache?.read(digest);
    if (cached) return { x: float32(cached.shape, cached.values), target: row.target };
    const x = await run(row.x);
    if (x.dtype === "float32") await cache?.write(digest, { shape: x.shape, values: x.data as Float32Array });
    return { x, target: row.target };
  }
}

/** Rows through a stem, each time anew: for rows that are random views. */
export function throughStem<Target>(
  rows: RowSource<Target>,
  run: (x: Tensor) => Promise<Tensor>,
): RowSource<Target> {
  return {
    count: rows.count,
    row: async (example, random) => {
      const { x, target } = await rows.row(example, random);
      return { x: await run(x), target };
    },
  };
}
