/**
 * Features of images on disk. A file's name is what the features depend on: the identity of the tap, the
 * preprocessing, how the tap is pooled, and the image's bytes; so nothing ever becomes stale, and a backbone under
 * another name finds its features again. Files are `.npz` with checksums; one that is broken counts as missing.
 */
import { createHash } from "node:crypto";
import { homedir } from "node:os";
import { join } from "node:path";
import { asPolyheadError, PolyheadError } from "../base/errors.js";
import { readFileBytes, writeFileAtomic } from "../files/disk.js";
import type { Identity } from "../onnx/identity.js";
import { readNpz, writeNpz } from "../tensor/npz.js";
import type { Shape } from "../tensor/shape.js";
import { float32, int64, toNumbers } from "../tensor/tensor.js";
import type { Preprocessing } from "../vision/preprocessing.js";
import type { ChannelPlace } from "./pooling.js";

/** Counted up when features are computed in another way. */
const VERSION = 1;

/** What a tap gives for one image. */
export interface Feature {
  /** The tap's shape with a batch of one. */
  readonly shape: Shape;
  /** The tap's mean over all but channels, or all of it. */
  readonly values: Float32Array;
}

/** What features depend on, beside the image. */
export interface FeatureSource {
  readonly identity: Identity;
  readonly preprocessing: Preprocessing;
  readonly channels?: ChannelPlace | undefined;
  /** All of the tap instead of its mean. */
  readonly whole?: boolean;
}

/** `$XDG_CACHE_HOME/polyhead/features`, or `.cache/polyhead/features` in the home folder. */
export function defaultCacheFolder(environment: NodeJS.ProcessEnv = process.env): string {
  const base = environment.XDG_CACHE_HOME || join(homedir(), ".cache");
  return join(base, "polyhead", "features");
}

/** The cached features of one source. */
export class FeatureCache {
  readonly #folder: string;

  constructor(folder: string, { identity, preprocessing, channels, whole }: FeatureSource) {
    const kept = whole ? "whole" : (channels ?? "by shape");
    const key = JSON.stringify([VERSION, identity, preprocessing, kept]);
    this.#folder = join(folder, createHash("sha256").update(key).digest("hex"));
  }

  /** The features of the image with that SHA-256; undefined when they are not there or broken. */
  async read(digest: string): Promise<Feature | undefined> {
    try {
      const arrays = readNpz(await readFileBytes(this.#path(digest), 2 ** 26));
      const [shape, values] = [arrays.get("shape"), arrays.get("values")];
      if (!shape || values?.dtype !== "float32" || values.shape.length !== 1) return undefined;
      return { shape: [...toNumbers(shape)], values: Float32Array.from(toNumbers(values)) };
    } catch (thrown) {
      if (thrown instanceof PolyheadError) return undefined;
      throw thrown;
    }
  }

  /**
   * Keeps the features of an image.
   * @throws PolyheadError FILE_NOT_WRITTEN
   */
  async write(digest: string, { shape, values }: Feature): Promise<void> {
    const arrays = { shape: int64([shape.length], shape), values: float32([values.length], values) };
    await writeFileAtomic(this.#path(digest), writeNpz(arrays)).catch((thrown) => {
      const { message } = asPolyheadError(thrown, "FILE_NOT_WRITTEN", "writing failed");
      throw new PolyheadError(
        "FILE_NOT_WRITTEN",
        `The feature cache ${this.#folder} cannot be used: ${message}. Give another folder with --cache, or \`--cache none\`.`,
        { path: this.#folder },
        { cause: thrown },
      );
    });
  }

  #path(digest: string): string {
    return join(this.#folder, `${digest}.npz`);
  }
}
