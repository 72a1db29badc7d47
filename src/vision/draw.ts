/**
 * Pictures of results: boxes with labels over an image, and a panel of class scores below it. Line widths and
 * letters grow with the image, a class has the same colour in every picture, and tags stay within the image
 * and off each other where there is room. Needs Node (sharp), but no fonts.
 */
import sharp from "sharp";
import type { Classification } from "./classification.js";
import type { Detection } from "./detections.js";
import { CAPITAL_HEIGHT, textStrokes, textWidth } from "./font.js";
import type { Image } from "./image.js";
import type { Rectangle } from "./placement.js";

/** Width of a frame and height of a capital, in pixels, for one picture. */
interface Measures {
  readonly width: number;
  readonly height: number;
  readonly line: number;
  readonly letter: number;
}

const PANEL = { background: "#16181d", text: "#f4f5f7", faint: "#343a46" };

/** What is drawn: a detection, or something that has no score, such as an object that no detection found. */
export type DrawnBox = Omit<Detection, "score"> & { readonly score?: number };

/**
 * The image as PNG with a frame and a tag (label, and percent where there is a score) for each detection, and, where classifications are
 * given, with their scores in a panel below.
 * @throws whatever the image library throws when memory runs out; nothing else
 */
export async function annotate(
  image: Image,
  detections: readonly DrawnBox[],
  classifications: readonly Classification[] = [],
): Promise<Uint8Array> {
  const { width, height, rgb } = image;
  const measures = measure(image);
  const panel = drawPanel(classifications, measures);
  const total = height + panel.height;
  const drawing = drawDetections(detections, measures) + panel.svg;
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${total}">${drawing}</svg>`;
  const canvas = await sharp(rgb, { raw: { width, height, channels: 3 }, limitInputPixels: false })
    .extend({ bottom: panel.height, background: PANEL.background })
    .raw()
    .toBuffer();
  const png = await sharp(canvas, { raw: { width, height: total, channels: 3 }, limitInputPixels: false })
    .composite([{ input: Buffer.from(svg), limitInputPixels: false }])
    .png()
    .toBuffer();
  return new Uint8Array(png);
}

/** The colour of a class as red, green and blue (0..255): neighbours lie a golden angle apart. */
export function classColour(classIndex: number): readonly [number, number, number] {
  const hue = (classIndex * 137.508 + 205) % 360;
  const [saturation, lightness] = [0.78, 0.56];
  const amplitude = saturation * Math.min(lightness, 1 - lightness);
  const channel = (offset: number) => {
    const turn = (offset + hue / 30) % 12;
    return Math.round(255 * (lightness - amplitude * Math.max(-1, Math.min(turn - 3, 9 - turn, 1))));
  };
  return [channel(0), channel(8), channel(4)];
}

function measure({ width, height }: Image): Measures {
  const side = Math.sqrt(width * height);
  return { width, height, line: Math.max(1.5, side / 320), letter: Math.max(8, side / 64) };
}

/** Frames first and tags over them, the best detection on top. */
function drawDetections(detections: readonly DrawnBox[], measures: Measures): string {
  const ascending = detections.toSorted((a, b) => (a.score ?? 0) - (b.score ?? 0));
  const frames = ascending.map((detection) => drawFrame(detection, measures));
  const taken: Rectangle[] = [];
  const tags = ascending.toReversed().map((detection) => drawTag(detection, measures, taken));
  return frames.join("") + tags.toReversed().join("");
}

function drawFrame({ box, classIndex }: DrawnBox, { line, width, height }: Measures): string {
  // Half a line inwards, so that a frame at the edge of the image is seen whole.
  const inset = line * 0.9;
  const x = Math.max(box.x1, inset);
  const y = Math.max(box.y1, inset);
  const wide = Math.max(1, Math.min(box.x2, width - inset) - x);
  const high = Math.max(1, Math.min(box.y2, height - inset) - y);
  const shape = `x="${x.toFixed(1)}" y="${y.toFixed(1)}" width="${wide.toFixed(1)}" height="${high.toFixed(1)}" rx="${line}"`;
  return (
    `<rect ${shape} fill="none" stroke="#000" stroke-opacity=".55" stroke-width="${line * 1.8}"/>` +
    `<rect ${shape} fill="none" stroke="${css(classColour(classIndex))}" stroke-width="${line}"/>`
  );
}

function drawTag(
  { box, label, score, classIndex }: DrawnBox,
  measures: Measures,
  taken: Rectangle[],
): string {
  const { line, width } = measures;
  const text = score === undefined ? label : `${label} ${percent(score)}`;
  const natural = (textWidth(text) * measures.letter) / CAPITAL_HEIGHT;
  // Room for descenders below and as much above; a tag wider than the image is made smaller as a whole.
  const letter = measures.letter * Math.min(1, width / (natural + measures.letter * 1.4));
  const size = { width: (natural * letter) / measures.letter + letter * 1.3, height: letter * 2.1 };
  const place = placeTag(box, size, measures, taken);
  taken.push(place);
  const colour = classColour(classIndex);
  const shape = `x="${place.left.toFixed(1)}" y="${place.top.toFixed(1)}" width="${size.width.toFixed(1)}" height="${size.height.toFixed(1)}"`;
  return (
    `<rect ${shape} rx="${(letter * 0.3).toFixed(1)}" fill="${css(colour)}" stroke="#000" stroke-opacity=".55" stroke-width="${line * 0.4}"/>` +
    textStrokes(text, place.left + letter * 0.65, place.top + letter * 0.52, letter, inkOn(colour))
  );
}

/** A place for a tag: over, within or under the box; the first that hits no other tag, else the first. */
function placeTag(
  box: DrawnBox["box"],
  size: { width: number; height: number },
  { width, height, line }: Measures,
  taken: readonly Rectangle[],
): Rectangle {
  const left = within(box.x1 - line / 2, width - size.width);
  const right = within(box.x2 + line / 2 - size.width, width - size.width);
  const [above, top, bottom, below] = [box.y1 - size.height, box.y1, box.y2 - size.height, box.y2];
  const candidates: [number, number][] = [
    [left, above],
    [left, top],
    [right, above],
    [right, top],
    [left, below],
    [left, bottom],
    [right, bottom],
  ];
  const places = candidates
    .filter(([, y]) => y >= 0 && y + size.height <= height)
    .map(([x, y]) => ({ left: x, top: y, ...size }));
  const first = places[0] ?? { left, top: within(top, height - size.height), ...size };
  return places.find((place) => !taken.some((other) => meet(place, other))) ?? first;
}

/** Bars of scores: label, bar, percent. */
function drawPanel(
  classifications: readonly Classification[],
  measures: Measures,
): { svg: string; height: number } {
  if (classifications.length === 0) return { svg: "", height: 0 };
  const { width } = measures;
  const labels = Math.max(...classifications.map(({ label }) => textWidth(label)));
  const widest = labels + textWidth("100%");
  // Letters shrink until the longest label, the percent and a bar of a quarter find room.
  const letter = Math.min(measures.letter, (0.7 * width * CAPITAL_HEIGHT) / widest);
  const unit = letter / CAPITAL_HEIGHT;
  const margin = letter;
  const row = letter * 2.2;
  const start = margin + labels * unit + letter;
  const end = width - margin - textWidth("100%") * unit - letter;
  const rows = classifications.map(({ label, score, classIndex }, index) => {
    const y = measures.height + margin + index * row;
    const bar = (length: number, colour: string) =>
      `<rect x="${start.toFixed(1)}" y="${(y - letter * 0.1).toFixed(1)}" width="${length.toFixed(1)}" height="${(letter * 1.2).toFixed(1)}" rx="${(letter * 0.3).toFixed(1)}" fill="${colour}"/>`;
    const room = Math.max(0, end - start);
    const amount = percent(score);
    return (
      textStrokes(label, margin, y, letter, PANEL.text) +
      bar(room, PANEL.faint) +
      bar(room * within(score, 1), css(classColour(classIndex))) +
      textStrokes(amount, width - margin - textWidth(amount) * unit, y, letter, PANEL.text)
    );
  });
  return { svg: rows.join(""), height: Math.ceil(2 * margin + classifications.length * row - letter * 1.2) };
}

/** Black or white, whichever is read better on a colour (WCAG relative luminance). */
function inkOn(colour: readonly [number, number, number]): string {
  const [red = 0, green = 0, blue = 0] = colour.map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 ? "#000" : "#fff";
}

function css(colour: readonly [number, number, number]): string {
  return `rgb(${colour.join(",")})`;
}

function percent(score: number): string {
  return `${Math.round(100 * score)}%`;
}

function within(value: number, limit: number): number {
  return Math.max(0, Math.min(value, limit));
}

function meet(a: Rectangle, b: Rectangle): boolean {
  return (
    a.left < b.left + b.width &&
    b.left < a.left + a.width &&
    a.top < b.top + b.height &&
    b.top < a.top + a.height
  );
}
