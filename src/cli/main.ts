/**
 * The command `polyhead`: its verbs. A verb's file in `verbs/` declares its arguments and prints its outcome;
 * what it does lives in the folders below.
 */
import { Command } from "commander";
import { manifest } from "./manifest.js";

/**
 * What adds each verb, in the order of the help. A verb is loaded when it is called, since all of them together take longer
 * to load than many need to do their work; for help and for names that are no verb, all are.
 */
const VERBS: Readonly<Record<string, () => Promise<(program: Command) => void>>> = {
  demo: async () => (await import("./verbs/demo.js")).addDemo,
  inspect: async () => (await import("./verbs/inspect.js")).addInspect,
  import: async () => (await import("./verbs/import.js")).addImport,
  split: async () => (await import("./verbs/split.js")).addSplit,
  join: async () => (await import("./verbs/join.js")).addJoin,
  share: async () => (await import("./verbs/share.js")).addShare,
  run: async () => (await import("./verbs/run.js")).addRun,
  teach: async () => (await import("./verbs/teach.js")).addTeach,
  adapt: async () => (await import("./verbs/adapt.js")).addAdapt,
  plan: async () => (await import("./verbs/plan.js")).addPlan,
  upgrade: async () => (await import("./verbs/upgrade.js")).addUpgrade,
  tune: async () => (await import("./verbs/tune.js")).addTune,
  grad: async () => (await import("./verbs/grad.js")).addGrad,
  serve: async () => (await import("./verbs/serve.js")).addServe,
  heads: async () => (await import("./verbs/heads.js")).addHeads,
  switch: async () => (await import("./verbs/switch.js")).addSwitch,
  doctor: async () => (await import("./verbs/doctor.js")).addDoctor,
};

const program = new Command("polyhead").description(manifest.description).version(manifest.version);
program.showHelpAfterError("(see polyhead --help)").exitOverride((error) => {
  process.exit(error.exitCode === 0 ? 0 : 64);
});
const [name = ""] = process.argv.slice(2);
const called = Object.hasOwn(VERBS, name) ? VERBS[name] : undefined;
for (const load of called ? [called] : Object.values(VERBS)) (await load())(program);
await program.parseAsync();
