/**
 * Loading beside requests: it takes the processor that they need, some milliseconds in all. Done in one go, every request
 * that meets it would wait that long; with a pause between its steps those that come wait for one step.
 */
import type { Engine } from "../engine/index.js";

/** Milliseconds that a load leaves to requests between two steps: longer than a step takes. */
const PAUSE = 10;

/** Lets requests that are under way go on before the next step of a load; it takes no longer than the pause. */
export async function giveWay({ work }: Pick<Engine, "work">): Promise<void> {
  if (work.running > 0) await new Promise((resolve) => setTimeout(resolve, PAUSE));
}
