/** Progress on a terminal, and silence in a pipe. */
import { describe, expect, it } from "vitest";
import { duration, progressBar, trainingBar } from "../../src/cli/progress.js";

/** A stream that keeps what is written. */
function terminal(isTTY = true) {
  const written: string[] = [];
  const stream = { isTTY, write: (text: string) => written.push(text) } as unknown as NodeJS.WriteStream;
  return { stream, written };
}

describe("the progress of a training", () => {
  it("shows loss, quality and time left, by the steps since it began", () => {
    const { stream, written } = terminal();
    let time = 5000;
    const show = trainingBar({ stream, now: () => time });
    show({ step: 100, steps: 200, loss: 2.5 });
    time += 1000;
    show({ step: 110, steps: 200, loss: 1.5 });
    time += 50;
    show({ step: 111, steps: 200, loss: 1.4 });
    time += 59_950;
    show({ step: 150, steps: 200, loss: 0.001234567, quality: "accuracy 91.2 %" });
    time += 10;
    show({ step: 200, steps: 200, loss: 0.5 });
    const half = `${"#".repeat(15)}${"-".repeat(15)}`;
    expect(written).toEqual([
      `\rtraining ${half} 100/200, loss 2.500\u001b[K`,
      `\rtraining ${"#".repeat(16)}${"-".repeat(14)} 110/200, loss 1.500, 9 s left\u001b[K`,
      `\rtraining ${"#".repeat(22)}${"-".repeat(8)} 150/200, loss 0.001235, accuracy 91.2 %, 1:01 min left\u001b[K`,
      "\r\u001b[K",
    ]);
  });

  it("shows nothing in a pipe", () => {
    const { stream, written } = terminal(false);
    trainingBar({ stream })({ step: 1, steps: 2, loss: 1 });
    progressBar("images", stream)(1, 2);
    expect(written).toEqual([]);
  });

  it("has times as people read them", () => {
    expect([400, 8000, 59_600, 125_000, 3_723_000].map(duration)).toEqual([
      "0 s",
      "8 s",
      "1:00 min",
      "2:05 min",
      "1:02:03 h",
    ]);
  });
});
