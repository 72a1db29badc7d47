/**
 * Rows from images: read, decoded, seen in a random view, preprocessed as the model wants it. Decoded images are kept,
 * made smaller where they are much larger than the model's input, within a budget of memory; whether one was kept
 * changes no pixel. The image library decodes and resamples on threads of its own, so the event loop stays free.
 */
import { PolyheadError } from "../base/errors.js";
import type { Random } from "../base/random.js";
import { decodeImage, type Image, imageTensor, shrinkImage, type View, viewTensor } from "../vision/image.js";
import { placeImage } from "../vision/placement.js";
import type { Preprocessing } from "../vision/preprocessing.js";
import { type Augmentation, randomView, viewedBoxes } from "./augmentation.js";
import type { Example } from "./data-set.js";
import { readImageFile } from "./image-file.js";
import type { ObjectBox } from "./listing.js";
import type { Row, RowSource } from "./rows.js";

/** How images become rows. */
export interface ImageRowsOptions<Target> {
  readonly preprocessing: Preprocessing;
  /** Random views; without it every row is exactly what the model is given when it serves. */
  readonly augmentation?: Augmentation | undefined;
  /** The target as it is in a view; scale is that of the image seen, by the image of the data set. */
  readonly targetIn: (target: Target, view: View, scale: Scale) => Target;
  /** Bytes of decoded images that are kept; 512 MiB by default. */
  readonly memory?: number;
}

/** How much smaller the image that a view is of is than the example's. */
export interface Scale {
  readonly x: number;
  readonly y: number;
}

/** A decoded image, or one that is being decoded and has no bytes yet. */
interface Kept {
  readonly image: Promise<Image>;
  bytes: number;
}

/** Images much larger than the input lose nothing that a random view would show: kept at this multiple of it. */
const KEPT_SIZE = 2;

/** Rows of images. */
export class ImageRows<Target> implements RowSource<Target> {
  readonly count: number;
  readonly #examples: readonly Example<Target>[];
  readonly #options: ImageRowsOptions<Target>;
  readonly #kept = new Map<string, Kept>();
  readonly #memory: number;
  #used = 0;

  constructor(examples: readonly Example<Target>[], options: ImageRowsOptions<Target>) {
    this.#examples = examples;
    this.#options = options;
    this.#memory = options.memory ?? 2 ** 29;
    this.count = examples.length;
  }

  async row(at: number, random: Random): Promise<Row<Target>> {
    const example = this.#examples[at];
    if (!example) throw new PolyheadError("INTERNAL", `There is no example ${at} of ${this.count}.`, {});
    const { preprocessing, augmentation, targetIn } = this.#options;
    if (!augmentation) {
      const image = await decoded(example);
      const { tensor, placement } = await imageTensor(image, preprocessing);
      return { x: tensor, target: targetIn(example.target, { placement }, { x: 1, y: 1 }) };
    }
    const image = await this.#image(example);
    const view = randomView(image, preprocessing, augmentation, random);
    const scale = { x: image.width / example.size.width, y: image.height / example.size.height };
    return {
      x: await viewTensor(image, view, preprocessing),
      target: targetIn(example.target, view, scale),
    };
  }

  /** The decoded image, kept while there is memory; those used longest ago leave first. */
  async #image(example: Example<Target>): Promise<Image> {
    const known = this.#kept.get(example.digest);
    const kept = known ?? { image: this.#decodeSmall(example), bytes: 0 };
    this.#kept.delete(example.digest);
    this.#kept.set(example.digest, kept);
    try {
      const image = await kept.image;
      if (kept.bytes === 0 && this.#kept.get(example.digest) === kept) {
        kept.bytes = image.rgb.length;
        this.#used += kept.bytes;
        this.#makeRoom();
      }
      return image;
    } catch (thrown) {
      this.#kept.delete(example.digest);
      throw thrown;
    }
  }

  #makeRoom(): void {
    for (const [digest, { bytes }] of this.#kept) {
      if (this.#used <= this.#memory) return;
      if (bytes === 0) continue;
      this.#kept.delete(digest);
      this.#used -= bytes;
    }
  }

  async #decodeSmall(example: Example<Target>): Promise<Image> {
    const image = await decoded(example);
    const { source, target } = placeImage(image, this.#options.preprocessing);
    const surplus = Math.min(source.width / target.width, source.height / target.height) / KEPT_SIZE;
    return surplus > 1 ? shrinkImage(image, surplus) : image;
  }
}

/** Rows of images with one class each. */
export function classRows(
  examples: readonly Example<number>[],
  options: Omit<ImageRowsOptions<number>, "targetIn">,
): ImageRows<number> {
  return new ImageRows(examples, { ...options, targetIn: (target) => target });
}

/** Rows of images with boxes, which are given in pixels of the model's input. */
export function boxRows(
  examples: readonly Example<readonly ObjectBox[]>[],
  options: Omit<ImageRowsOptions<readonly ObjectBox[]>, "targetIn">,
): ImageRows<readonly ObjectBox[]> {
  return new ImageRows(examples, {
    ...options,
    targetIn: (boxes, view, { x, y }) =>
      viewedBoxes(
        boxes.map((box) => ({
          ...box,
          ...{ x1: box.x1 * x, y1: box.y1 * y, x2: box.x2 * x, y2: box.y2 * y },
          ...(box.area !== undefined && { area: box.area * x * y }),
        })),
        view,
      ),
  });
}

/** @throws PolyheadError DATA_MALFORMED when the file is not the one that the data set has looked at */
async function decoded({ path, id, digest }: Example<unknown>): Promise<Image> {
  const file = await readImageFile(path);
  if (file.digest === digest) return decodeImage(file.bytes);
  throw new PolyheadError(
    "DATA_MALFORMED",
    `The image ${id} has changed since the data was looked at; expected the same bytes. Begin again with the data as it is.`,
    { id, path },
  );
}
