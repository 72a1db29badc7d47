/**
 * How an image becomes a model's input: a plain record that travels as JSON in the model's metadata
 * (`polyhead.preprocessing`), and named recipes for the habits of the field. Data only; `image.ts` does
 * what the record says. One image input a model; no augmentation.
 */
import { type ErrorCode, PolyheadError } from "../base/errors.js";
import { RecordReader } from "./record.js";

const FITS = ["stretch", "cover", "contain"] as const;
const COLOURS = ["rgb", "bgr", "grey"] as const;
const LAYOUTS = ["nchw", "nhwc"] as const;
const DTYPES = ["float32", "uint8", "int8", "int32"] as const;
const KERNELS = ["nearest", "linear", "cubic", "lanczos3"] as const;
const LARGEST_SIDE = 16384;

/**
 * How pixels become a tensor of shape [1, channels, height, width] (`nchw`) or [1, height, width, channels]
 * (`nhwc`): fit to size, colour, linear map of 0..255 onto `range`, minus `mean`, divided by `deviation`.
 */
export interface Preprocessing {
  /** Pixels of the model's input. */
  readonly height: number;
  readonly width: number;
  /** `stretch` ignores the aspect ratio, `cover` cuts off what stands over, `contain` fills up around. */
  readonly fit: (typeof FITS)[number];
  /** Share of the side that `cover` keeps in the middle, from 0 to 1: 0.875 is ImageNet's 224 of 256. */
  readonly crop: number;
  /** What `contain` fills up with: red, green and blue from 0 to 255. */
  readonly padding: readonly number[];
  /** Channels and their order; grey is one channel of BT.601 luma. */
  readonly colour: (typeof COLOURS)[number];
  readonly layout: (typeof LAYOUTS)[number];
  /** Whole-number types are rounded and clamped after everything else. */
  readonly dtype: (typeof DTYPES)[number];
  /** What the pixel values 0 and 255 become. */
  readonly range: readonly number[];
  /** Subtracted after `range`; one a channel, in the model's channel order. */
  readonly mean: readonly number[];
  /** Divides what is left; one a channel, above 0. */
  readonly deviation: readonly number[];
  /** Filter of the resize; all but `nearest` are widened when an image is made smaller. */
  readonly kernel: (typeof KERNELS)[number];
}

/** What a recipe or a caller says about preprocessing; the rest takes defaults. */
export type PartialPreprocessing = { readonly [Field in keyof Preprocessing]?: Preprocessing[Field] };

/** Named recipes. Those without a size take it from the model's input. */
export const PREPROCESSING_RECIPES = {
  /** torchvision's evaluation transform. */
  imagenet: {
    height: 224,
    width: 224,
    fit: "cover",
    crop: 0.875,
    layout: "nchw",
    range: [0, 1],
    mean: [0.485, 0.456, 0.406],
    deviation: [0.229, 0.224, 0.225],
  },
  /** Keras' MobileNet and Inception families. */
  mobilenet: { height: 224, width: 224, fit: "cover", crop: 0.875, layout: "nhwc", range: [-1, 1] },
  /** Google's Teachable Machine image models. */
  "teachable-machine": { height: 224, width: 224, fit: "cover", layout: "nhwc", range: [-1, 1] },
  /** The COCO detector of `@vladmandic/human`. */
  centernet: { height: 512, width: 512, fit: "stretch", layout: "nhwc", range: [0, 255] },
  /** YOLO's letterbox. */
  yolo: { height: 640, width: 640, fit: "contain", padding: [114, 114, 114], layout: "nchw", range: [0, 1] },
  /** Pixels from 0 to 1. */
  unit: { range: [0, 1] },
  /** Pixels from -1 to 1. */
  signed: { range: [-1, 1] },
  /** Pixels from 0 to 255. */
  raw: { range: [0, 255] },
} as const satisfies Record<string, PartialPreprocessing>;

/** Name of a recipe. */
export type PreprocessingRecipe = keyof typeof PREPROCESSING_RECIPES;

/**
 * A recipe with some fields replaced.
 * @throws PolyheadError INVALID_ARGUMENT for an unknown recipe, a wrong field, or no size at all
 */
export function preprocessingRecipe(name: string, changes: PartialPreprocessing = {}): Preprocessing {
  if (!Object.hasOwn(PREPROCESSING_RECIPES, name)) {
    const expected = Object.keys(PREPROCESSING_RECIPES);
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `No preprocessing recipe is named ${JSON.stringify(name)}; expected one of ${expected.join(", ")}.`,
      { got: name, expected },
    );
  }
  const recipe: PartialPreprocessing = PREPROCESSING_RECIPES[name as PreprocessingRecipe];
  return parsePreprocessing({ ...recipe, ...changes }, "INVALID_ARGUMENT");
}

/** Channels of the model's input: 1 for grey, 3 else. */
export function channelsOf({ colour }: Pick<Preprocessing, "colour">): 1 | 3 {
  return colour === "grey" ? 1 : 3;
}

/** Shape of the tensor that one image becomes. */
export function inputShape(preprocessing: Preprocessing): readonly [number, number, number, number] {
  const { height, width, layout } = preprocessing;
  const channels = channelsOf(preprocessing);
  return layout === "nchw" ? [1, channels, height, width] : [1, height, width, channels];
}

/**
 * The record in a value or in its JSON text, complete with defaults: stretch, rgb, nchw, float32, range 0 to
 * 1, mean 0, deviation 1, linear.
 * @param code INVALID_ARGUMENT where a caller gave it, MODEL_MALFORMED where a model's metadata did
 * @throws PolyheadError of that code, naming the field and what was expected
 */
export function parsePreprocessing(json: unknown, code: ErrorCode = "MODEL_MALFORMED"): Preprocessing {
  const reader = new RecordReader(json, "preprocessing", code);
  const side = { min: 1, max: LARGEST_SIDE, whole: true };
  const colour = reader.oneOf("colour", COLOURS, "rgb");
  const channels = channelsOf({ colour });
  const preprocessing: Preprocessing = {
    height: reader.number("height", side),
    width: reader.number("width", side),
    fit: reader.oneOf("fit", FITS, "stretch"),
    crop: reader.number("crop", { min: 0.01, max: 1 }, 1),
    padding: reader.numbers("padding", 3, { min: 0, max: 255, whole: true }, [0, 0, 0]),
    colour,
    layout: reader.oneOf("layout", LAYOUTS, "nchw"),
    dtype: reader.oneOf("dtype", DTYPES, "float32"),
    range: reader.numbers("range", 2, {}, [0, 1]),
    mean: reader.numbers("mean", channels, {}, Array(channels).fill(0)),
    deviation: reader.numbers("deviation", channels, { min: Number.MIN_VALUE }, Array(channels).fill(1)),
    kernel: reader.oneOf("kernel", KERNELS, "linear"),
  };
  reader.end();
  return preprocessing;
}
