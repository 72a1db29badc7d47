/**
 * Plots as SVG: lines and points over two axes, each linear or logarithmic, with a legend and round ticks. Colours are
 * CSS variables with defaults, so that a plot is legible by itself and follows the page it stands in. Static; values
 * show when the pointer rests on a point.
 */
import { escaped } from "./html.js";

/** Numbers to draw. */
export interface Series {
  readonly label: string;
  /** Pairs of x and y; what is not finite, or beyond 1e300, leaves a gap. */
  readonly points: readonly (readonly [x: number, y: number])[];
  /** `line` by default. `points` marks each, with its name beside it where there are names. */
  readonly kind?: "line" | "points" | "both";
  /** One a point. */
  readonly names?: readonly string[];
  /** The interval of each point's y, drawn as a line through it. */
  readonly intervals?: readonly (readonly [low: number, high: number])[];
}

/** One axis. */
export interface Axis {
  readonly label: string;
  readonly isLogarithmic?: boolean;
  /** Included in the range whatever the numbers are. */
  readonly includes?: readonly number[];
  /** How a number is written; with as few digits as its ticks need by default. */
  readonly format?: (value: number) => string;
}

/** What to draw. */
export interface Plot {
  readonly title: string;
  readonly x: Axis;
  readonly y: Axis;
  readonly series: readonly Series[];
  /** In pixels; 520 x 300 by default. */
  readonly width?: number;
  readonly height?: number;
}

/** Lines of more points are drawn as the means of so many pieces. */
const MOST_POINTS = 400;
/** Beyond it the sum of a number and a tick could overflow; closer to zero than its inverse, numbers lose their digits. */
const MOST_SIZE = 1e300;
/** Ticks closer together than this share of the largest number could not be told apart. */
const LEAST_SHARE = 1e-12;
const COLOURS = ["#2563a8", "#d9681d", "#1f8a5b", "#8e4ec6", "#b3372f"];
const INK = "var(--plot-ink, #667085)";
const GRID = "var(--plot-grid, #d9d9d9)";

/** The plot as an SVG element. */
export function plotSvg({ title, x, y, series, width = 520, height = 300 }: Plot): string {
  const drawn = series.map((each) => ({ ...each, points: thinned(each, x) }));
  const points = drawn.flatMap((each) => each.points.filter(isDrawn(x, y)));
  const across = scaleOf(
    x,
    points.map(([value]) => value),
    true,
  );
  const down = scaleOf(
    y,
    [...points.map(([, value]) => value), ...drawn.flatMap(({ intervals = [] }) => intervals.flat())],
    false,
  );
  const texts = down.ticks.map(down.format);
  const left = 20 + 7 * Math.max(...texts.map((text) => text.length), 2) + 16;
  const frame = { left, right: width - 18, top: series.length > 1 ? 62 : 42, bottom: height - 46 };
  const atX = (value: number) => frame.left + across.place(value) * (frame.right - frame.left);
  const atY = (value: number) => frame.bottom - down.place(value) * (frame.bottom - frame.top);
  const parts = [
    text(16, 24, title, `font-size="15" font-weight="600" fill="currentColor"`),
    ...(series.length > 1 ? legend(drawn, 46, width) : []),
    ...down.ticks.map(
      (value, at) =>
        `<line x1="${frame.left}" x2="${frame.right}" y1="${round(atY(value))}" y2="${round(atY(value))}" stroke="${GRID}"/>${text(frame.left - 8, round(atY(value) + 4), texts[at] ?? "", `text-anchor="end" fill="${INK}"`)}`,
    ),
    ...across.ticks.map((value) =>
      text(round(atX(value)), frame.bottom + 18, across.format(value), `text-anchor="middle" fill="${INK}"`),
    ),
    text((frame.left + frame.right) / 2, height - 10, x.label, `text-anchor="middle" fill="${INK}"`),
    `<g transform="translate(14 ${(frame.top + frame.bottom) / 2}) rotate(-90)">${text(0, 0, y.label, `text-anchor="middle" fill="${INK}"`)}</g>`,
    ...drawn.map((each, at) => drawSeries(each, at)),
  ];
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" aria-label="${escaped(title)}" font-family="system-ui, sans-serif" font-size="12">${parts.join("")}</svg>`;

  function drawSeries({ points: own, kind = "line", names, label, intervals }: Series, at: number): string {
    const colour = colourOf(at);
    const inside = isDrawn(x, y);
    const lines =
      kind === "points"
        ? ""
        : `<path d="${path(own)}" fill="none" stroke="${colour}" stroke-width="2" stroke-linejoin="round" stroke-linecap="round"/>`;
    if (kind === "line") return lines;
    const marks = own.map(([a, b], place) => {
      if (!inside([a, b])) return "";
      const name = names?.[place];
      const told = `${name ?? label}: ${across.format(a)}, ${down.format(b)}`;
      const [cx, cy] = [round(atX(a)), round(atY(b))];
      const interval = intervals?.[place];
      const line = interval
        ? `<line x1="${cx}" x2="${cx}" y1="${round(atY(interval[0]))}" y2="${round(atY(interval[1]))}" stroke="${colour}" stroke-width="2" stroke-opacity="0.4"/>`
        : "";
      const anchor = cx > frame.right - 40 ? "end" : cx < frame.left + 40 ? "start" : "middle";
      const beside =
        name === undefined ? "" : text(cx, cy - 10, name, `fill="currentColor" text-anchor="${anchor}"`);
      return `${line}<circle cx="${cx}" cy="${cy}" r="4" fill="${colour}"><title>${escaped(told)}</title></circle>${beside}`;
    });
    return lines + marks.join("");
  }

  function path(own: Series["points"]): string {
    const inside = isDrawn(x, y);
    let isOpen = false;
    return own
      .map((point) => {
        if (!inside(point)) {
          isOpen = false;
          return "";
        }
        const command = isOpen ? "L" : "M";
        isOpen = true;
        return `${command}${round(atX(point[0]))} ${round(atY(point[1]))}`;
      })
      .join("");
  }
}

function isDrawn(x: Axis, y: Axis): (point: readonly [number, number]) => boolean {
  const isFit = (axis: Axis, value: number) =>
    Math.abs(value) <= MOST_SIZE && (!axis.isLogarithmic || value >= 1 / MOST_SIZE);
  return ([a, b]) => isFit(x, a) && isFit(y, b);
}

/** A long line as the means of its pieces; gaps count as nothing within a piece. */
function thinned({ points, kind = "line" }: Series, x: Axis): Series["points"] {
  if (kind !== "line" || points.length <= MOST_POINTS || x.isLogarithmic) return points;
  const size = points.length / MOST_POINTS;
  return Array.from({ length: MOST_POINTS }, (_, piece) => {
    const part = points.slice(Math.floor(piece * size), Math.floor((piece + 1) * size));
    const known = part.filter(([, value]) => Number.isFinite(value));
    const mean = (place: 0 | 1) => known.reduce((sum, point) => sum + point[place], 0) / known.length;
    return [mean(0), mean(1)] as const;
  });
}

interface Scale {
  readonly ticks: readonly number[];
  readonly format: (value: number) => string;
  /** From 0 to 1 within the axis. */
  place(value: number): number;
}

/** @param isTight whether the axis ends where the numbers do, not at the next tick */
function scaleOf(axis: Axis, values: readonly number[], isTight: boolean): Scale {
  const all = [...values, ...(axis.includes ?? [])];
  let low = all.reduce((least, value) => Math.min(least, value), Number.POSITIVE_INFINITY);
  let high = all.reduce((most, value) => Math.max(most, value), Number.NEGATIVE_INFINITY);
  if (all.length === 0) [low, high] = axis.isLogarithmic ? [1, 10] : [0, 1];
  return axis.isLogarithmic ? logarithmic(axis, low, high) : linear(axis, low, high, isTight);
}

/** Ticks at 1, 2 or 5 times a power of ten. */
function linear(axis: Axis, low: number, high: number, isTight: boolean): Scale {
  const least = Math.max(1 / MOST_SIZE, LEAST_SHARE * Math.max(Math.abs(low), Math.abs(high)));
  const isRange = high - low >= least;
  const span = isRange ? high - low : Math.max(Math.abs(low) || 1, least);
  const raw = span / 5;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ([1, 2, 5, 10].find((each) => each * power >= raw * 0.999) ?? 10);
  const first = Math.floor(low / step + 1e-9);
  const last = Math.max(Math.ceil(high / step - 1e-9), first + 1);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const ticks = Array.from({ length: last - first + 1 }, (_, at) => (first + at) * step);
  const [start, end] = isTight && isRange ? [low / step, high / step] : [first, last];
  return {
    ticks: ticks.filter((value) => value / step >= start - 1e-9 && value / step <= end + 1e-9),
    format: axis.format ?? ((value) => shortNumber(value, digits)),
    place: (value) => (value / step - start) / (end - start),
  };
}

/** Ticks at powers of ten, and at 2 and 5 times them where there are few. */
function logarithmic(axis: Axis, low: number, high: number): Scale {
  const [from, to] = [Math.log10(low) - 0.05, Math.log10(high) + 0.05];
  const factors = to - from > 2.5 ? [1] : [1, 2, 5];
  const ticks: number[] = [];
  for (let power = Math.floor(from); power <= Math.ceil(to); power++) {
    for (const factor of factors) {
      const value = factor * 10 ** power;
      const place = Math.log10(value);
      if (place >= from && place <= to) ticks.push(value);
    }
  }
  return {
    ticks,
    format: axis.format ?? ((value) => shortNumber(value, value < 1 ? 3 : 0)),
    place: (value) => (Math.log10(value) - from) / (to - from),
  };
}

function shortNumber(value: number, digits: number): string {
  const size = Math.abs(value);
  if (size >= 1e9) return `${trimmed(value / 1e9)}G`;
  if (size >= 1e6) return `${trimmed(value / 1e6)}M`;
  if (size >= 1e4) return `${trimmed(value / 1e3)}k`;
  if (size > 0 && size < 1e-4) return value.toExponential(0);
  return value.toFixed(Math.min(digits, 6));
}

function trimmed(value: number): string {
  return String(Number(value.toPrecision(3)));
}

function legend(series: readonly Series[], y: number, width: number): string[] {
  let x = 16;
  return series.flatMap(({ label }, at) => {
    if (x > width - 60) return [];
    const item = `<rect x="${x}" y="${y - 8}" width="14" height="4" rx="2" fill="${colourOf(at)}"/>${text(x + 20, y - 2, label, `fill="${INK}"`)}`;
    x += 20 + 7 * label.length + 22;
    return [item];
  });
}

function colourOf(at: number): string {
  const place = at % COLOURS.length;
  return `var(--plot-${place + 1}, ${COLOURS[place]})`;
}

function text(x: number, y: number, content: string, attributes: string): string {
  return `<text x="${x}" y="${y}" ${attributes}>${escaped(content)}</text>`;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
