/**
 * Random views of an image for training: another part of it, larger or smaller, mirrored, in other colours. Data and
 * arithmetic only; `vision/image.ts` makes the pixels. What is drawn depends on the generator alone, and boxes move
 * with their image. No rotation and no shear: boxes would no longer fit.
 */
import type { ErrorCode } from "../base/errors.js";
import { between, type Random } from "../base/random.js";
import type { Box } from "../vision/detections.js";
import type { ColourMatrix, ColourRow, View } from "../vision/image.js";
import { type Placement, placeImage, type Rectangle, type Size, toInputPoint } from "../vision/placement.js";
import type { Preprocessing } from "../vision/preprocessing.js";
import { RecordReader } from "../vision/record.js";
import type { ObjectBox } from "./listing.js";

/** How far views may differ from the plain one; every number is drawn evenly between its limits. */
export interface Augmentation {
  /** Probability of exchanging left and right. */
  readonly mirror: number;
  /** Probability of exchanging top and bottom. */
  readonly upsideDown: number;
  /**
   * Least and greatest area of what is shown, as a share of what the model is shown without augmentation: below 1
   * shows a part, larger; above 1 shows the image smaller, with the padding's colour around it.
   */
  readonly area: readonly number[];
  /** The shape of what is shown, width by height, changes by a factor from 1/aspect to aspect; at least 1. */
  readonly aspect: number;
  /** Colours are multiplied by a factor from 1 - brightness to 1 + brightness. */
  readonly brightness: number;
  /** Distances from middle grey, likewise. */
  readonly contrast: number;
  /** Distances from the pixel's grey, likewise. */
  readonly saturation: number;
  /** Colours turn by up to this part of the circle, either way; 0.5 at most. */
  readonly hue: number;
}

const NONE: Augmentation = {
  mirror: 0,
  upsideDown: 0,
  area: [1, 1],
  aspect: 1,
  brightness: 0,
  contrast: 0,
  saturation: 0,
  hue: 0,
};

/** Named strengths. */
export const AUGMENTATIONS = {
  /** The plain view. */
  none: NONE,
  /** For few images and for heads: the object stays where it was. */
  light: { ...NONE, mirror: 0.5, area: [0.6, 1], aspect: 1.15, brightness: 0.1, contrast: 0.1 },
  /** For fine-tuning. */
  standard: {
    ...NONE,
    ...{ mirror: 0.5, area: [0.35, 1], aspect: 4 / 3 },
    ...{ brightness: 0.2, contrast: 0.2, saturation: 0.2, hue: 0.02 },
  },
  /** For training from random weights: torchvision's crop of 8 % and more. */
  strong: {
    ...NONE,
    ...{ mirror: 0.5, area: [0.08, 1], aspect: 4 / 3 },
    ...{ brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.05 },
  },
  /** For boxes: objects become up to 1.6 times larger or 1.4 times smaller. */
  boxes: {
    ...NONE,
    ...{ mirror: 0.5, area: [0.4, 2], aspect: 1.2 },
    ...{ brightness: 0.2, contrast: 0.2, saturation: 0.2, hue: 0.02 },
  },
} as const satisfies Record<string, Augmentation>;

/** Name of a strength. */
export type AugmentationName = keyof typeof AUGMENTATIONS;

/**
 * The record in a name of {@link AUGMENTATIONS}, a value or its JSON text; fields that are left out change nothing.
 * @throws PolyheadError of that code, naming the field and what was expected
 */
export function parseAugmentation(json: unknown, code: ErrorCode = "INVALID_ARGUMENT"): Augmentation {
  if (typeof json === "string" && Object.hasOwn(AUGMENTATIONS, json)) {
    return AUGMENTATIONS[json as AugmentationName];
  }
  const reader = new RecordReader(json, "augmentation", code);
  const share = { min: 0, max: 1 };
  const augmentation: Augmentation = {
    mirror: reader.number("mirror", share, NONE.mirror),
    upsideDown: reader.number("upsideDown", share, NONE.upsideDown),
    area: [...reader.numbers("area", 2, { min: 0.01, max: 16 }, NONE.area)].sort((a, b) => a - b),
    aspect: reader.number("aspect", { min: 1, max: 4 }, NONE.aspect),
    brightness: reader.number("brightness", share, NONE.brightness),
    contrast: reader.number("contrast", share, NONE.contrast),
    saturation: reader.number("saturation", share, NONE.saturation),
    hue: reader.number("hue", { min: 0, max: 0.5 }, NONE.hue),
  };
  reader.end();
  return augmentation;
}

/** A random view of an image of that size. As many numbers are drawn whatever comes out. */
export function randomView(
  size: Size,
  preprocessing: Preprocessing,
  augmentation: Augmentation,
  random: Random,
): View {
  const { area, aspect, mirror, upsideDown, brightness, contrast, saturation, hue } = augmentation;
  const [least = 1, most = 1] = area;
  const share = between(random, least, most);
  const shape = Math.exp(between(random, -Math.log(aspect), Math.log(aspect)));
  const [across, down] = [random(), random()];
  const isMirrored = random() < mirror;
  const isUpsideDown = random() < upsideDown;
  const colours = colourMatrix(
    between(random, 1 - brightness, 1 + brightness),
    between(random, 1 - contrast, 1 + contrast),
    between(random, 1 - saturation, 1 + saturation),
    between(random, -hue, hue),
  );
  const changesPlace = most !== 1 || least !== 1 || aspect !== 1;
  const changesColours = brightness + contrast + saturation + hue > 0;
  return {
    placement: changesPlace
      ? placedWindow(size, preprocessing, share, shape, across, down)
      : placeImage(size, preprocessing),
    isMirrored,
    isUpsideDown,
    ...(changesColours && { colours }),
  };
}

/**
 * Boxes of an image as they lie in a view, in pixels of the model's input and within it. Boxes of which less than
 * `visible` of the area is shown become ignored ones; those that are not shown at all are left out.
 */
export function viewedBoxes(boxes: readonly ObjectBox[], view: View, visible = 0.3): ObjectBox[] {
  const { placement, isMirrored = false, isUpsideDown = false } = view;
  const { width, height } = placement.input;
  return boxes.flatMap(({ x1, y1, x2, y2, area, ...rest }) => {
    const [first, second] = [toInputPoint(placement, x1, y1), toInputPoint(placement, x2, y2)];
    const whole = { x1: first.x, y1: first.y, x2: second.x, y2: second.y };
    const shown = intersection(whole, edgesOf(placement.target));
    if (!shown) return [];
    const left = isMirrored ? width - shown.x2 : shown.x1;
    const top = isUpsideDown ? height - shown.y2 : shown.y1;
    const box = { x1: left, y1: top, x2: left + shown.x2 - shown.x1, y2: top + shown.y2 - shown.y1 };
    const share = areaOf(shown) / areaOf(whole);
    // The object's own area, where it was known, shrinks with its box.
    const own =
      area === undefined ? {} : { area: (area * areaOf(shown)) / Math.max(areaOf({ x1, y1, x2, y2 }), 1e-9) };
    return [{ ...rest, ...box, ...own, ...(share < visible && { isIgnored: true }) }];
  });
}

/** Where the image lies when a window of that share and shape is shown, as far to the right and down as told. */
function placedWindow(
  size: Size,
  preprocessing: Preprocessing,
  share: number,
  shape: number,
  across: number,
  down: number,
): Placement {
  const { source, target, input, image } = placeImage(size, preprocessing);
  // What the whole input shows, in pixels of the image; more than the image where there is padding.
  const plain = {
    width: (source.width * input.width) / target.width,
    height: (source.height * input.height) / target.height,
  };
  const window = {
    width: plain.width * Math.sqrt(share * shape),
    height: plain.height * Math.sqrt(share / shape),
  };
  const horizontal = placedSide(size.width, window.width, input.width, across);
  const vertical = placedSide(size.height, window.height, input.height, down);
  return {
    image,
    input,
    source: {
      left: horizontal.from,
      top: vertical.from,
      width: horizontal.length,
      height: vertical.length,
    },
    target: { left: horizontal.to, top: vertical.to, width: horizontal.filled, height: vertical.filled },
  };
}

/** One side: which whole pixels of the image fill which whole pixels of the input. */
function placedSide(image: number, window: number, input: number, place: number) {
  const start = place * (image - window);
  const from = Math.min(image - 1, Math.max(0, Math.round(start)));
  const end = Math.min(image, Math.max(from + 1, Math.round(start + window)));
  const scale = input / window;
  const to = window <= image ? 0 : Math.min(input - 1, Math.max(0, Math.round(-start * scale)));
  const filled = window <= image ? input : Math.min(input - to, Math.max(1, Math.round(image * scale)));
  return { from, length: end - from, to, filled };
}

/** Brightness, then contrast, then saturation, then hue, as one matrix. */
function colourMatrix(brightness: number, contrast: number, saturation: number, hue: number): ColourMatrix {
  // BT.601 luma; the hue turns in the plane of YIQ's two colour axes.
  const luma: readonly number[] = [0.299, 0.587, 0.114];
  const turn = 2 * Math.PI * hue;
  const [cos, sin] = [Math.cos(turn) * saturation, Math.sin(turn) * saturation];
  const gain = brightness * contrast;
  const offset = 127.5 * (1 - contrast);
  const row = (own: number): ColourRow => {
    const factor = (from: number) => {
      const grey = luma[from] ?? 0;
      const turned = (YIQ_TURN[own]?.[from] ?? 0) * sin;
      return grey + ((own === from ? 1 : 0) - grey) * cos + turned;
    };
    const factors = [factor(0), factor(1), factor(2)] as const;
    // Grey stays grey, so the factors of a row add up to 1 and the offset passes through unchanged.
    return [factors[0] * gain, factors[1] * gain, factors[2] * gain, offset];
  };
  return [row(0), row(1), row(2)];
}

/**
 * The derivative of turning the hue: from RGB to YIQ, a quarter of a turn of I and Q, and back
 * (NTSC's matrices of three digits; rows for red, green and blue).
 */
const YIQ_TURN = quarterTurn();

function quarterTurn(): number[][] {
  const inPhase = [0.596, -0.274, -0.322];
  const quadrature = [0.211, -0.523, 0.312];
  const back = [
    [0.956, 0.621],
    [-0.272, -0.647],
    [-1.106, 1.703],
  ];
  return back.map(([i = 0, q = 0]) => inPhase.map((each, at) => q * each - i * (quadrature[at] ?? 0)));
}

function intersection(a: Box, b: Box): Box | undefined {
  const box = {
    x1: Math.max(a.x1, b.x1),
    y1: Math.max(a.y1, b.y1),
    x2: Math.min(a.x2, b.x2),
    y2: Math.min(a.y2, b.y2),
  };
  return box.x2 > box.x1 && box.y2 > box.y1 ? box : undefined;
}

function edgesOf({ left, top, width, height }: Rectangle): Box {
  return { x1: left, y1: top, x2: left + width, y2: top + height };
}

function areaOf({ x1, y1, x2, y2 }: Box): number {
  return (x2 - x1) * (y2 - y1);
}
