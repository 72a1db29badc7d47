/** The loss as options of a verb. */
import { type Command, InvalidArgumentError, Option } from "commander";
import { PolyheadError } from "../base/errors.js";
import type { ArrayBatchOptions, Match } from "../train/array-batches.js";
import { LOSS_KINDS, type Loss } from "../train/losses.js";
import { readNumber, readPositive, readShare } from "./option-numbers.js";

/** What the options give. */
export interface LossOptions {
  readonly loss: Loss["kind"];
  readonly output?: string;
  readonly match?: readonly Match[];
  readonly labelSmoothing?: number;
  readonly classWeights?: readonly number[];
  readonly positiveWeight?: number;
  readonly beta?: number;
  readonly gamma?: number;
  readonly alpha?: number;
  readonly temperature?: number;
}

type Setting = Exclude<keyof LossOptions, "loss" | "output" | "match">;

/** What settings each loss has. */
const SETTINGS: Readonly<Record<Loss["kind"], readonly Setting[]>> = {
  "cross-entropy": ["labelSmoothing", "classWeights"],
  "binary-cross-entropy": ["positiveWeight"],
  "mean-squared": [],
  "smooth-l1": ["beta"],
  focal: ["gamma", "alpha"],
  distillation: ["temperature"],
  "centre-heat": [],
  "masked-l1": [],
};

/** Adds the options to a verb. */
export function addLossOptions(command: Command): Command {
  return command
    .addOption(
      new Option("--loss <name>", "what is made small").choices([...LOSS_KINDS]).default("cross-entropy"),
    )
    .option("--output <name>", "output that the loss looks at; the first by default")
    .option(
      "--match <value=weight...>",
      "values of the model to bring near to the arrays y/VALUE (feature matching)",
      readMatch,
    )
    .option(
      "--label-smoothing <share>",
      "share of each target that all classes get, with cross-entropy",
      readShare,
    )
    .option(
      "--class-weights <list>",
      "weight of each class, separated by commas, with cross-entropy",
      readNumbers,
    )
    .option("--positive-weight <number>", "weight of positives, with binary-cross-entropy", readPositive)
    .option("--beta <number>", "where the line begins, with smooth-l1; 1 by default", readPositive)
    .option("--gamma <number>", "how much easy examples count less, with focal; 2 by default", readNumber)
    .option("--alpha <share>", "weight of positives among shares, with focal; 0.25 by default", readShare)
    .option("--temperature <number>", "divides both logits, with distillation; 2 by default", readPositive);
}

/**
 * The loss that the options say.
 * @throws PolyheadError INVALID_ARGUMENT for a setting of another loss
 */
export function lossOf(options: LossOptions): Loss {
  const kind = options.loss;
  const all = [...new Set(Object.values(SETTINGS).flat())];
  const foreign = all.find((name) => options[name] !== undefined && !SETTINGS[kind].includes(name));
  if (foreign !== undefined) {
    const expected = LOSS_KINDS.filter((each) => SETTINGS[each].includes(foreign));
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `--${foreign.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)} goes with --loss ${expected.join(" or ")}; got ${kind}.`,
      { option: foreign, got: kind, expected },
    );
  }
  const settings = SETTINGS[kind].flatMap((name) =>
    options[name] === undefined ? [] : [[name, options[name]] as const],
  );
  return { kind, ...Object.fromEntries(settings) };
}

/** The loss, and what it looks at. @throws PolyheadError as {@link lossOf} does */
export function arrayLossOf(options: LossOptions): ArrayBatchOptions {
  return { loss: lossOf(options), output: options.output, matches: options.match };
}

function readNumbers(text: string): number[] {
  return text.split(",").map(readNumber);
}

/** `VALUE` or `VALUE=WEIGHT`; names of values may have an equals sign themselves, so the last one counts. */
function readMatch(text: string, before: readonly Match[] = []): Match[] {
  const at = text.lastIndexOf("=");
  if (at < 0) return [...before, { value: text, weight: 1 }];
  const value = text.slice(0, at);
  if (value === "") throw new InvalidArgumentError("Expected VALUE or VALUE=WEIGHT.");
  return [...before, { value, weight: readNumber(text.slice(at + 1)) }];
}
