/** Which options of `tune` say something to which way to train; others are refused instead of passed over. */
import type { Command } from "commander";
import { PolyheadError } from "../../base/errors.js";
import type { TuneOptions, WAYS } from "./options.js";

/** What learns: a way with images, or full training on arrays. */
type Learner = (typeof WAYS)[number] | "arrays";

const [CLASSES, FURTHER, ARRAYS] = [
  ["head", "branch", "full"],
  ["branch", "full", "detect"],
  ["arrays"],
] as const satisfies readonly Learner[][];
const IMAGES = [...CLASSES, "detect"] as const satisfies Learner[];
const ALL = [...IMAGES, "arrays"] as const satisfies Learner[];
const STEPPED = [...FURTHER, "arrays"] as const satisfies Learner[];

const USES: Readonly<Record<keyof TuneOptions, readonly Learner[]>> = {
  way: ALL,
  out: ALL,
  seed: ALL,
  threads: ALL,
  weightDecay: ALL,
  data: IMAGES,
  tap: IMAGES,
  preprocess: IMAGES,
  hidden: IMAGES,
  validation: IMAGES,
  bad: IMAGES,
  checkpoint: ALL,
  checkpointSteps: ALL,
  resume: ALL,
  report: IMAGES,
  publish: IMAGES,
  server: IMAGES,
  token: IMAGES,
  store: IMAGES,
  reason: IMAGES,
  channels: CLASSES,
  cache: CLASSES,
  head: CLASSES,
  folds: CLASSES,
  balance: CLASSES,
  loss: [...CLASSES, "arrays"],
  labelSmoothing: [...CLASSES, "arrays"],
  classWeights: [...CLASSES, "arrays"],
  gamma: [...CLASSES, "arrays"],
  freeze: ["branch", "detect"],
  depths: ["branch"],
  other: ["full"],
  backboneOut: ["full"],
  epochs: FURTHER,
  batch: FURTHER,
  augment: FURTHER,
  patience: FURTHER,
  optimizer: STEPPED,
  lr: STEPPED,
  momentum: STEPPED,
  nesterov: STEPPED,
  schedule: STEPPED,
  warmup: STEPPED,
  milestones: STEPPED,
  clip: STEPPED,
  accumulate: STEPPED,
  average: STEPPED,
  group: STEPPED,
  norms: STEPPED,
  recompute: STEPPED,
  npz: ARRAYS,
  order: ARRAYS,
  steps: ARRAYS,
  output: ARRAYS,
  match: ARRAYS,
  positiveWeight: ARRAYS,
  beta: ARRAYS,
  alpha: ARRAYS,
  temperature: ARRAYS,
};

/**
 * @param command with what was given on the line
 * @throws PolyheadError INVALID_ARGUMENT for an option that the way makes nothing of
 */
export function requireUses(command: Command, learner: Learner): void {
  for (const [name, learners] of Object.entries(USES)) {
    if (command.getOptionValueSource(name) !== "cli" || learners.includes(learner)) continue;
    const long = command.options.find((option) => option.attributeName() === name)?.long ?? name;
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `${long} says nothing to ${described(learner)}; it goes with ${learners.map(described).join(", ")}.`,
      { option: long, got: learner, expected: learners },
    );
  }
}

function described(learner: Learner): string {
  return learner === "arrays" ? "training on --npz" : `--way ${learner}`;
}
