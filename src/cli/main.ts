/**
 * The command `polyhead`: its verbs. A verb's file in `verbs/` declares its arguments and prints its outcome;
 * what it does lives in the folders below.
 */
import { Command } from "commander";
import { manifest } from "./manifest.js";
import { addAdapt } from "./verbs/adapt.js";
import { addDemo } from "./verbs/demo.js";
import { addDoctor } from "./verbs/doctor.js";
import { addGrad } from "./verbs/grad.js";
import { addHeads } from "./verbs/heads.js";
import { addImport } from "./verbs/import.js";
import { addInspect } from "./verbs/inspect.js";
import { addJoin } from "./verbs/join.js";
import { addPlan } from "./verbs/plan.js";
import { addRun } from "./verbs/run.js";
import { addServe } from "./verbs/serve.js";
import { addShare } from "./verbs/share.js";
import { addSplit } from "./verbs/split.js";
import { addSwitch } from "./verbs/switch.js";
import { addTeach } from "./verbs/teach.js";
import { addTune } from "./verbs/tune.js";
import { addUpgrade } from "./verbs/upgrade.js";

/** Each adds one verb; in the order of the help. */
const VERBS: readonly ((program: Command) => void)[] = [
  addDemo,
  addInspect,
  addImport,
  addSplit,
  addJoin,
  addShare,
  addRun,
  addTeach,
  addAdapt,
  addPlan,
  addUpgrade,
  addTune,
  addGrad,
  addServe,
  addHeads,
  addSwitch,
  addDoctor,
];

const program = new Command("polyhead").description(manifest.description).version(manifest.version);
program.showHelpAfterError("(see polyhead --help)").exitOverride((error) => {
  process.exit(error.exitCode === 0 ? 0 : 64);
});
for (const add of VERBS) add(program);
await program.parseAsync();
