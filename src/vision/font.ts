/**
 * Letters as strokes, so that text on pictures needs no font of the system (a fresh machine may have none).
 * Printable ASCII in SVG path syntax on a grid: capitals stand from y = 0 to the baseline at y = 6, small
 * letters begin at y = 2, descenders end at y = 8. Accents are dropped; what is not ASCII becomes a box.
 */

/** Width, and the strokes from x = 0. */
type Glyph = readonly [width: number, path: string];

/** Distance between two letters, in units of the grid. */
const SPACING = 1.5;
const UNKNOWN: Glyph = [4, "M0 0H4V6H0Z"];

const GLYPHS: Readonly<Record<string, Glyph>> = {
  " ": [1.6, ""],
  "!": [0, "M0 0V3.8M0 5.8V6"],
  '"': [1.6, "M0 0V1.6M1.6 0V1.6"],
  "#": [4, "M1.4 0L.8 6M3.2 0L2.6 6M.2 2H4M0 4H3.8"],
  $: [
    4,
    "M3.8 1.3C3.4 .9 2.8 .6 2 .6C.8 .6 .2 1.1 .2 1.8C.2 3.5 4 2.5 4 4.2C4 5 3.2 5.4 2 5.4C1.1 5.4 .4 5.1 0 4.6M2 -.4V6.4",
  ],
  "%": [
    5,
    "M4.4 0L.6 6M1.2 0C.5 0 0 .5 0 1.3S.5 2.6 1.2 2.6 2.4 2.1 2.4 1.3 1.9 0 1.2 0ZM3.8 3.4C3.1 3.4 2.6 3.9 2.6 4.7S3.1 6 3.8 6 5 5.5 5 4.7 4.5 3.4 3.8 3.4Z",
  ],
  "&": [4.6, "M4.6 6L1 2C.3 1.1 .8 0 1.9 0S3.3 1.3 2.5 2L1 3C-.4 4 0 6 1.8 6C3.3 6 4.3 4.8 4.4 3"],
  "'": [0, "M0 0V1.6"],
  "(": [1.4, "M1.4 -.6C-.4 1.4 -.4 4.8 1.4 6.8"],
  ")": [1.4, "M0 -.6C1.8 1.4 1.8 4.8 0 6.8"],
  "*": [3, "M1.5 0V3.4M0 .8L3 2.6M3 .8L0 2.6"],
  "+": [3.6, "M1.8 1.4V5M0 3.2H3.6"],
  ",": [0.6, "M.6 5.7L0 7.2"],
  "-": [2.4, "M0 3.3H2.4"],
  ".": [0, "M0 5.8V6"],
  "/": [2.6, "M2.6 0L0 6.6"],
  "0": [4, "M2 0C.7 0 0 1.2 0 3S.7 6 2 6 4 4.8 4 3 3.3 0 2 0Z"],
  "1": [2, "M0 1.3L2 0V6"],
  "2": [4, "M.1 1.6C.2 .6 .9 0 2 0S3.9 .7 3.9 1.7C3.9 3.1 1.8 4.2 0 6H4"],
  "3": [
    4,
    "M.2 .9C.5 .3 1.1 0 2 0C3.1 0 3.8 .6 3.8 1.5S3.1 2.9 1.9 2.9H1.5M1.9 2.9C3.2 2.9 4 3.5 4 4.4S3.2 6 2 6C1 6 .3 5.6 0 4.9",
  ],
  "4": [4.2, "M3.2 6V0L0 4.4H4.2"],
  "5": [4, "M3.6 0H.6L.3 2.8C.8 2.4 1.3 2.2 2 2.2C3.2 2.2 4 3 4 4.1S3.2 6 1.9 6C1 6 .4 5.7 0 5.1"],
  "6": [
    4,
    "M3.6 .7C3.2 .2 2.7 0 2.2 0C.8 0 0 1.3 0 3.6C0 5.2 .8 6 2 6S4 5.2 4 4.1 3.2 2.3 2.1 2.3C1 2.3 .2 3 0 3.9",
  ],
  "7": [3.8, "M0 0H3.8L1.4 6"],
  "8": [
    4,
    "M2 2.8C.9 2.8 .3 2.2 .3 1.4S.9 0 2 0 3.7 .6 3.7 1.4 3.1 2.8 2 2.8C.8 2.8 0 3.5 0 4.4S.8 6 2 6 4 5.3 4 4.4 3.2 2.8 2 2.8Z",
  ],
  "9": [
    4,
    "M.4 5.3C.8 5.8 1.3 6 1.8 6C3.2 6 4 4.7 4 2.4C4 .8 3.2 0 2 0S0 .8 0 1.9 .8 3.7 1.9 3.7C3 3.7 3.8 3 4 2.1",
  ],
  ":": [0, "M0 2.4V2.6M0 5.8V6"],
  ";": [0.6, "M.4 2.4V2.6M.6 5.7L0 7.2"],
  "<": [3, "M3 1.2L0 3.2L3 5.2"],
  "=": [3.4, "M0 2.4H3.4M0 4.2H3.4"],
  ">": [3, "M0 1.2L3 3.2L0 5.2"],
  "?": [3.6, "M0 1.5C.1 .6 .8 0 1.8 0S3.6 .6 3.6 1.6C3.6 2.9 1.8 2.8 1.8 4.1M1.8 5.8V6"],
  "@": [
    6,
    "M4.2 2.2V4C4.2 5.4 6 5 6 3C6 1.1 4.8 0 3 0S0 1.2 0 3.2 1.2 6.6 3.1 6.6C3.9 6.6 4.6 6.4 5.1 6M4.2 3.2C4.2 2.4 3.7 1.9 3 1.9S1.7 2.4 1.7 3.2 2.2 4.6 3 4.6 4.2 4 4.2 3.2Z",
  ],
  A: [4.4, "M0 6L2.2 0L4.4 6M.8 4H3.6"],
  B: [3.8, "M0 0V6H2.1C3.2 6 3.8 5.4 3.8 4.5S3.2 2.9 2.1 2.9H0M0 0H1.9C2.9 0 3.5 .6 3.5 1.4S2.9 2.9 1.9 2.9"],
  C: [4.2, "M4.2 1.3C3.8 .5 3.1 0 2.3 0C.9 0 0 1.2 0 3S.9 6 2.3 6C3.1 6 3.8 5.5 4.2 4.7"],
  D: [4.2, "M0 0V6H1.6C3.3 6 4.2 4.9 4.2 3S3.3 0 1.6 0Z"],
  E: [3.4, "M3.4 0H0V6H3.4M0 2.9H3"],
  F: [3.3, "M3.3 0H0V6M0 3H2.9"],
  G: [4.4, "M4.2 1.3C3.8 .5 3.1 0 2.3 0C.9 0 0 1.2 0 3S.9 6 2.3 6C3.6 6 4.4 5.1 4.4 3.7V3.3H2.5"],
  H: [4.2, "M0 0V6M4.2 0V6M0 2.9H4.2"],
  I: [0, "M0 0V6"],
  J: [2.6, "M2.6 0V4.4C2.6 5.5 2.1 6 1.3 6S.1 5.6 0 4.8"],
  K: [3.9, "M0 0V6M3.8 0L0 3.8M1.4 2.5L3.9 6"],
  L: [3.2, "M0 0V6H3.2"],
  M: [5, "M0 6V0L2.5 4.4L5 0V6"],
  N: [4.2, "M0 6V0L4.2 6V0"],
  O: [4.8, "M2.4 0C.9 0 0 1.2 0 3S.9 6 2.4 6 4.8 4.8 4.8 3 3.9 0 2.4 0Z"],
  P: [3.7, "M0 6V0H2C3.1 0 3.7 .7 3.7 1.7S3.1 3.4 2 3.4H0"],
  Q: [4.8, "M2.4 0C.9 0 0 1.2 0 3S.9 6 2.4 6 4.8 4.8 4.8 3 3.9 0 2.4 0ZM3 4.5L4.7 6.6"],
  R: [3.9, "M0 6V0H2C3.1 0 3.7 .7 3.7 1.6S3.1 3.2 2 3.2H0M2 3.2L3.9 6"],
  S: [
    3.8,
    "M3.6 1C3.2 .3 2.6 0 1.9 0C.8 0 .2 .6 .2 1.4C.2 3.5 3.8 2.3 3.8 4.5C3.8 5.4 3.1 6 2 6C1.1 6 .4 5.6 0 4.8",
  ],
  T: [4, "M0 0H4M2 0V6"],
  U: [4.2, "M0 0V3.9C0 5.2 .8 6 2.1 6S4.2 5.2 4.2 3.9V0"],
  V: [4.4, "M0 0L2.2 6L4.4 0"],
  W: [6, "M0 0L1.5 6L3 .6L4.5 6L6 0"],
  X: [4, "M0 0L4 6M4 0L0 6"],
  Y: [4, "M0 0L2 3L4 0M2 3V6"],
  Z: [3.8, "M0 0H3.8L0 6H3.8"],
  "[": [1.2, "M1.2 -.6H0V6.8H1.2"],
  "\\": [2.6, "M0 0L2.6 6.6"],
  "]": [1.2, "M0 -.6H1.2V6.8H0"],
  "^": [3, "M0 2L1.5 0L3 2"],
  _: [3.6, "M0 6.8H3.6"],
  "`": [1, "M0 0L1 1.2"],
  a: [3.4, "M3.4 2V6M3.4 4C3.4 2.8 2.7 2 1.7 2S0 2.8 0 4 .7 6 1.7 6 3.4 5.2 3.4 4"],
  b: [3.4, "M0 0V6M0 4C0 2.8 .7 2 1.7 2S3.4 2.8 3.4 4 2.7 6 1.7 6 0 5.2 0 4"],
  c: [3.1, "M3.1 2.8C2.8 2.3 2.3 2 1.7 2C.7 2 0 2.8 0 4S.7 6 1.7 6C2.3 6 2.8 5.7 3.1 5.2"],
  d: [3.4, "M3.4 0V6M3.4 4C3.4 2.8 2.7 2 1.7 2S0 2.8 0 4 .7 6 1.7 6 3.4 5.2 3.4 4"],
  e: [3.4, "M0 4H3.4C3.4 2.7 2.7 2 1.7 2S0 2.8 0 4 .7 6 1.8 6C2.4 6 2.9 5.7 3.2 5.3"],
  f: [2, "M2 .1C.9 -.2 .7 .5 .7 1.3V6M0 2.2H1.9"],
  g: [
    3.4,
    "M3.4 2V6.2C3.4 7.3 2.7 8 1.7 8C1 8 .5 7.8 .1 7.4M3.4 4C3.4 2.8 2.7 2 1.7 2S0 2.8 0 4 .7 6 1.7 6 3.4 5.2 3.4 4",
  ],
  h: [3.2, "M0 0V6M0 3.8C0 2.7 .7 2 1.7 2S3.2 2.6 3.2 3.7V6"],
  i: [0, "M0 2V6M0 .2V.4"],
  j: [1, "M1 2V6.8C1 7.6 .7 8 0 8M1 .2V.4"],
  k: [3, "M0 0V6M2.8 2L0 4.4M1.1 3.5L3 6"],
  l: [0.8, "M0 0V5C0 5.7 .2 6 .8 6"],
  m: [5.2, "M0 2V6M0 3.6C0 2.6 .6 2 1.4 2S2.6 2.5 2.6 3.5V6M2.6 3.6C2.6 2.6 3.2 2 4 2S5.2 2.5 5.2 3.5V6"],
  n: [3.2, "M0 2V6M0 3.8C0 2.7 .7 2 1.7 2S3.2 2.6 3.2 3.7V6"],
  o: [3.6, "M1.8 2C.7 2 0 2.8 0 4S.7 6 1.8 6 3.6 5.2 3.6 4 2.9 2 1.8 2Z"],
  p: [3.4, "M0 2V8M0 4C0 2.8 .7 2 1.7 2S3.4 2.8 3.4 4 2.7 6 1.7 6 0 5.2 0 4"],
  q: [3.4, "M3.4 2V8M3.4 4C3.4 2.8 2.7 2 1.7 2S0 2.8 0 4 .7 6 1.7 6 3.4 5.2 3.4 4"],
  r: [2, "M0 2V6M0 4C0 2.7 .8 2 2 2.1"],
  s: [
    2.8,
    "M2.6 2.7C2.4 2.2 1.9 2 1.4 2C.7 2 .2 2.4 .2 2.9C.2 4.4 2.8 3.6 2.8 5C2.8 5.6 2.2 6 1.4 6C.8 6 .2 5.7 0 5.2",
  ],
  t: [2, "M.8 .6V5C.8 5.8 1.2 6.1 2 5.9M0 2.1H1.9"],
  u: [3.2, "M0 2V4.3C0 5.4 .5 6 1.5 6S3.2 5.3 3.2 4.2M3.2 2V6"],
  v: [3.4, "M0 2L1.7 6L3.4 2"],
  w: [5, "M0 2L1.3 6L2.5 2.4L3.7 6L5 2"],
  x: [3.2, "M0 2L3.2 6M3.2 2L0 6"],
  y: [3.4, "M0 2L1.7 5.8M3.4 2L1.5 6.6C1.1 7.6 .7 8 0 8"],
  z: [3, "M0 2H3L0 6H3"],
  "{": [1.8, "M1.8 -.6C.4 -.6 1.4 3.1 0 3.1C1.4 3.1 .4 6.8 1.8 6.8"],
  "|": [0, "M0 -.6V6.8"],
  "}": [1.8, "M0 -.6C1.4 -.6 .4 3.1 1.8 3.1C.4 3.1 1.4 6.8 0 6.8"],
  "~": [3.6, "M0 3.6C.8 1.6 2.8 5 3.6 3"],
};

/** Height of a capital in units of the grid. */
export const CAPITAL_HEIGHT = 6;

/** Width of a line of text in units of the grid. */
export function textWidth(text: string): number {
  const glyphs = glyphsOf(text);
  return glyphs.reduce((width, [own]) => width + own, SPACING * Math.max(0, glyphs.length - 1));
}

/**
 * A line of text as SVG strokes, its capitals' top left corner at (x, y).
 * @param height of a capital in pixels
 * @param colour of the strokes, in SVG's words
 */
export function textStrokes(text: string, x: number, y: number, height: number, colour: string): string {
  let at = 0;
  const paths = glyphsOf(text).map(([width, path]) => {
    const placed = path === "" ? "" : `<path transform="translate(${at.toFixed(2)})" d="${path}"/>`;
    at += width + SPACING;
    return placed;
  });
  const scale = height / CAPITAL_HEIGHT;
  return (
    `<g transform="translate(${x.toFixed(2)} ${y.toFixed(2)}) scale(${scale.toFixed(4)})" fill="none" ` +
    `stroke="${colour}" stroke-width=".95" stroke-linecap="round" stroke-linejoin="round">${paths.join("")}</g>`
  );
}

/** A glyph for each letter: without its accents, and a box where the font has none. */
function glyphsOf(text: string): Glyph[] {
  const letters = text.normalize("NFKD").replace(/\p{Mark}/gu, "");
  return Array.from(letters, (letter) =>
    Object.hasOwn(GLYPHS, letter) ? (GLYPHS[letter] ?? UNKNOWN) : UNKNOWN,
  );
}
