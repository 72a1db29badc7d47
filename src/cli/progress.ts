/** A progress bar on a terminal, nothing in a pipe. It is drawn on standard error, over itself. */

const WIDTH = 30;

/** Called with how much is done of how much. */
export type Progress = (done: number, total: number) => void;

/** A bar with a label; it removes itself when all is done. */
export function progressBar(label: string, stream: NodeJS.WriteStream = process.stderr): Progress {
  if (!stream.isTTY) return () => {};
  let shown = "";
  return (done, total) => {
    const filled = total === 0 ? WIDTH : Math.floor((done / total) * WIDTH);
    const line = `${label} ${"#".repeat(filled)}${"-".repeat(WIDTH - filled)} ${done}/${total}`;
    if (line === shown) return;
    shown = line;
    stream.write(done >= total ? "\r\u001b[K" : `\r${line}\u001b[K`);
  };
}
