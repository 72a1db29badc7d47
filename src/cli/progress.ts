/** Progress bars on a terminal, nothing in a pipe. They are drawn on standard error, over themselves. */

const WIDTH = 30;

/** Called with how much is done of how much. */
export type Progress = (done: number, total: number) => void;

/** A bar with a label; it removes itself when all is done. */
export function progressBar(label: string, stream: NodeJS.WriteStream = process.stderr): Progress {
  if (!stream.isTTY) return () => {};
  let shown = "";
  return (done, total) => {
    const line = `${label} ${bar(done, total)} ${done}/${total}`;
    if (line === shown) return;
    shown = line;
    stream.write(done >= total ? "\r\u001b[K" : `\r${line}\u001b[K`);
  };
}

function bar(done: number, total: number): string {
  const filled = total === 0 ? WIDTH : Math.min(WIDTH, Math.floor((done / total) * WIDTH));
  return "#".repeat(filled) + "-".repeat(WIDTH - filled);
}

/** Where a training is. */
export interface TrainingStep {
  /** Steps that are done, of how many. */
  readonly step: number;
  readonly steps: number;
  readonly loss: number;
  /** The last measurement of quality, once there is one: `accuracy 91.2 %`. */
  readonly quality?: string | undefined;
}

/** The clock and the terminal that a bar is drawn by. */
export interface ProgressSurroundings {
  readonly stream?: NodeJS.WriteStream;
  /** Milliseconds that only ever grow. */
  readonly now?: () => number;
}

/** Least time between two drawings. */
const REDRAW = 100;

/**
 * A bar with loss, quality and the time left, by the mean time of the steps so far; it removes itself at the last
 * step. A training that goes on at a step counts from there.
 */
export function trainingBar({
  stream = process.stderr,
  now = () => performance.now(),
}: ProgressSurroundings = {}): (at: TrainingStep) => void {
  if (!stream.isTTY) return () => {};
  let begun: { readonly step: number; readonly time: number } | undefined;
  let drawn = Number.NEGATIVE_INFINITY;
  return ({ step, steps, loss, quality }) => {
    const time = now();
    begun ??= { step, time };
    const isLast = step >= steps;
    if (time - drawn < REDRAW && !isLast) return;
    drawn = time;
    const done = step - begun.step;
    const left = done > 0 ? `, ${duration(((time - begun.time) / done) * (steps - step))} left` : "";
    const parts = [`loss ${loss.toPrecision(4)}`, ...(quality === undefined ? [] : [quality])];
    stream.write(
      isLast
        ? "\r\u001b[K"
        : `\rtraining ${bar(step, steps)} ${step}/${steps}, ${parts.join(", ")}${left}\u001b[K`,
    );
  };
}

/** Milliseconds as people read them: `8 s`, `2:05 min`, `1:02:03 h`. */
export function duration(milliseconds: number): string {
  const seconds = Math.round(milliseconds / 1000);
  if (seconds < 60) return `${seconds} s`;
  const two = (value: number) => String(Math.floor(value)).padStart(2, "0");
  if (seconds < 3600) return `${Math.floor(seconds / 60)}:${two(seconds % 60)} min`;
  return `${Math.floor(seconds / 3600)}:${two((seconds % 3600) / 60)}:${two(seconds % 60)} h`;
}
