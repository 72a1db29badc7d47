/** The examples of a training: a data set with the rows that each place in the backbone makes of its images. */
import { PolyheadError } from "../base/errors.js";
import { seededRandom } from "../base/random.js";
import type { Augmentation } from "../data/augmentation.js";
import type { DataSet } from "../data/data-set.js";
import { classRows } from "../data/image-rows.js";
import type { RowSource } from "../data/rows.js";
import type { OpenModel } from "../onnx/runner.js";
import { FeatureCache } from "../teach/feature-cache.js";
import { computeFeatures } from "../teach/features.js";
import { batchShape } from "../teach/pooling.js";
import type { SymbolicShape } from "../tensor/shape.js";
import type { Tensor } from "../tensor/tensor.js";
import { StemRows, throughStem, VectorRows } from "./rows.js";
import { partOf, type Site } from "./site.js";

/** Where features are kept, and how many images are worked on at a time. */
export interface ExampleOptions {
  readonly open: OpenModel;
  /** Folder for features; nothing is kept on disk without it. */
  readonly cache?: string | undefined;
  readonly inFlight?: number | undefined;
  readonly onFeature?: ((done: number, total: number) => void) | undefined;
}

/** Images with one class each, as rows of whatever is trained. */
export class Examples {
  readonly site: Site;
  readonly data: DataSet<number>;
  readonly targets: readonly number[];
  readonly #options: ExampleOptions;
  readonly #rows = new Map<string, Promise<RowSource<number>>>();
  readonly #close: (() => Promise<void>)[] = [];

  constructor(site: Site, data: DataSet<number>, options: ExampleOptions) {
    this.site = site;
    this.data = data;
    this.targets = data.examples.map(({ target }) => target);
    this.#options = options;
  }

  /** The mean of the tap over height and width, from the same cache that `teach` uses. */
  vectors(): Promise<RowSource<number>> {
    return this.#once("vectors", async () => {
      const { site, data } = this;
      const { open, cache, inFlight, onFeature } = this.#options;
      const features = await computeFeatures({
        source: {
          model: partOf(site, site.input, [site.tap.name]),
          ...site.tap,
          tap: site.tap.name,
          input: site.input,
        },
        preprocessing: site.preprocessing,
        paths: data.examples.map(({ path }) => path),
        channels: site.channels,
        ...{ open, cache },
        ...(inFlight !== undefined && { inFlight }),
        ...(onFeature && { progress: onFeature }),
      });
      return new VectorRows(
        features.map((each) => {
          if ("feature" in each) return each.feature.values;
          throw new PolyheadError(
            "DATA_MALFORMED",
            `The image ${each.path} cannot be read any more: ${each.problem}`,
            {
              path: each.path,
            },
          );
        }),
        this.targets,
      );
    });
  }

  /**
   * A value of the backbone as it is, the image's own tensor among them.
   * @param augmentation random views of the images, made anew whenever a row is asked for
   */
  values(value: string, augmentation?: Augmentation): Promise<RowSource<number>> {
    if (!augmentation) return this.#once(`values ${value}`, () => this.#plain(value));
    return this.#once(`views ${value}`, async () => {
      const { preprocessing } = this.site;
      const views = classRows(this.data.examples, { preprocessing, augmentation });
      const run = await this.#stem(value);
      return run ? throughStem(views, run) : views;
    });
  }

  /** The shape of a value for any batch; measured where the graph does not tell it. */
  async shapeOf(value: string): Promise<SymbolicShape> {
    const declared = this.site.types.get(value)?.shape;
    if (declared) return ["batch", ...declared.slice(1)];
    const { x } = await (await this.values(value)).row(0, seededRandom(0));
    return batchShape(x.shape);
  }

  /** Frees the stems. */
  async close(): Promise<void> {
    for (const close of this.#close.splice(0)) await close();
  }

  async #plain(value: string): Promise<RowSource<number>> {
    const { preprocessing, identities } = this.site;
    const { cache } = this.#options;
    const identity = identities.get(value);
    return new StemRows(classRows(this.data.examples, { preprocessing }), {
      run: await this.#stem(value),
      digests: this.data.examples.map(({ digest }) => digest),
      ...(cache !== undefined &&
        identity !== undefined && {
          cache: new FeatureCache(cache, { identity, preprocessing, whole: true }),
        }),
    });
  }

  /** What computes a value from an image's tensor; undefined for the image itself. */
  async #stem(value: string): Promise<((x: Tensor) => Promise<Tensor>) | undefined> {
    const { input } = this.site;
    if (value === input) return undefined;
    const opened = await this.#options.open(partOf(this.site, input, [value]), "all");
    this.#close.push(() => opened.close());
    return async (x) => {
      const made = (await opened.run(new Map([[input, x]]))).get(value);
      if (made?.shape[0] === 1) return made;
      throw new PolyheadError(
        "MODEL_UNSUPPORTED",
        `The value ${JSON.stringify(value)} has no first dimension of 1 for one image; a branch cannot leave there.`,
        { value, got: made?.shape },
      );
    };
  }

  #once(key: string, make: () => Promise<RowSource<number>>): Promise<RowSource<number>> {
    const known = this.#rows.get(key) ?? make();
    this.#rows.set(key, known);
    return known;
  }
}
