/**
 * Whether training more than the head was worth it: head and all that was trained behind it are compared on examples that
 * neither learned from, and the more accurate one is kept, of equals the head, which is cheaper and changes nothing else.
 */

/** What was kept, and why. */
export interface Choice {
  readonly kept: "head" | "trained";
  /** Accuracies of both on the examples that chose. */
  readonly head: number;
  readonly trained: number;
  /** Number of these examples. */
  readonly examples: number;
  /** `held-back`: the ones that the result is judged by; `set-aside`: some of those that it then learned from. */
  readonly by: "held-back" | "set-aside";
}

/** The choice by two accuracies. */
export function choose(accuracies: Omit<Choice, "kept">): Choice {
  return { kept: accuracies.trained > accuracies.head ? "trained" : "head", ...accuracies };
}

/** The choice in one sentence. */
export function describeChoice({ kept, head, trained, examples, by }: Choice): string {
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
  const judges = `${examples} examples ${by === "held-back" ? "held back" : "set aside to choose by"}`;
  return kept === "head"
    ? `The head alone is kept: training more did not make it more accurate, ${percent(trained)} after ${percent(head)} on ${judges}.`
    : `Training more than the head was worth it: ${percent(trained)} after ${percent(head)} on ${judges}.`;
}
