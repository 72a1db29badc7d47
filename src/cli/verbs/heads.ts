/** `polyhead heads`: models and routes of a running server or of a store. */
import { existsSync } from "node:fs";
import { basename } from "node:path";
import type { Command } from "commander";
import { PolyheadError } from "../../base/errors.js";
import { loadModel } from "../../files/disk.js";
import { toEvaluation } from "../../onnx/evaluation.js";
import type { Model } from "../../onnx/model.js";
import { BACKBONE_FILE, backboneBeside } from "../control/beside.js";
import type { Control, ListedChange, ListedRoute } from "../control/control.js";
import { type ControlOptions, openControl, withControlOptions } from "../control/open-control.js";
import { fullRevision } from "../control/targets.js";
import { table } from "../format.js";
import { importModel } from "../import-model.js";
import { type Outcome, performs } from "../outcome.js";
import { describeSource } from "../source-model.js";

/** So many letters of a revision are shown to people. */
const SHORT = 12;
/** What may be a revision rather than a file. */
const REVISION = /^[0-9a-f]{8,64}$/;

/** Adds the verb. */
export function addHeads(program: Command): void {
  const heads = program
    .command("heads")
    .description("list, add and remove the routes of a running server or of a store");
  const add = heads
    .command("add")
    .description("keep a model that loads: for a new route, or ready as a revision of one that is there")
    .argument(
      "<file>",
      "file of a head, a backbone or a whole model: ONNX, or what import takes; or a revision that is kept already",
    )
    .option("--route <name>", "the route; without it the model is kept for others to read");
  performs(withControlOptions(add, true), addModel);
  const list = heads.command("ls").description("all routes and where they point");
  performs(withControlOptions(list, false), listRoutes);
  const history = heads
    .command("history")
    .description("who changed routes, when and why, the newest first")
    .argument("[name]", "the route; all of them by default");
  performs(withControlOptions(history, false), listHistory);
  const remove = heads
    .command("rm")
    .description("take a route away; its model is kept")
    .argument("<name>", "the route");
  performs(withControlOptions(remove, true), removeRoute);
}

async function addModel(file: string, options: ControlOptions & { route?: string }): Promise<Outcome> {
  const { route } = options;
  const { revision, backbone, control } = await addGiven(file, options);
  const routes = await control.routes();
  const isLive = routes.some(
    (each) => each.name === route && each.revisions.some((target) => target.revision === revision),
  );
  return {
    data: {
      revision,
      ...(route !== undefined && { route }),
      live: isLive,
      ...(backbone !== undefined && { backbone }),
    },
    text: [
      revision,
      isLive
        ? `answers for ${route}`
        : route === undefined
          ? "is kept for other models to read"
          : `is kept ready; make it answer with: polyhead switch ${route}=${revision.slice(0, SHORT)}`,
      ...(backbone === undefined ? [] : [`${backbone}\nis its backbone, ${BACKBONE_FILE} beside it`]),
    ],
  };
}

interface Added {
  readonly revision: string;
  /** The revision of the backbone that was added with it. */
  readonly backbone?: string;
  readonly control: Control;
}

async function addGiven(given: string, options: ControlOptions & { route?: string }): Promise<Added> {
  const { route } = options;
  if (route !== undefined && REVISION.test(given) && !existsSync(given)) {
    const control = await openControl(options, "change");
    const revision = fullRevision(given, await control.revisions([route]));
    await control.addKept(revision, route);
    return { revision, control };
  }
  const model = await modelIn(given);
  const control = await openControl(options, "change");
  const add = () => control.add(model, basename(given), route);
  try {
    return { revision: await add(), control };
  } catch (thrown) {
    if (!(thrown instanceof PolyheadError) || thrown.code !== "HEAD_MISMATCH") throw thrown;
    const beside = await backboneBeside(given, toEvaluation(model).model);
    if (!beside) throw withoutBackbone(thrown);
    const backbone = await control.add(beside, BACKBONE_FILE, undefined);
    return { revision: await add(), backbone, control };
  }
}

function withoutBackbone({ code, message, details }: PolyheadError): PolyheadError {
  const hint = `Add the backbone that it was made for first, or put it beside the head as ${BACKBONE_FILE}.`;
  return new PolyheadError(code, `${message} ${hint}`, details);
}

/** ONNX files are kept as they are; others are imported. */
async function modelIn(path: string): Promise<Model> {
  const { format } = await describeSource(path);
  return format === "onnx" ? loadModel(path) : (await importModel(path)).model;
}

async function listRoutes(options: ControlOptions): Promise<Outcome> {
  const routes = await (await openControl(options, "read")).routes();
  return {
    data: { routes },
    text:
      routes.length === 0
        ? ["there are no routes; add one with: polyhead heads add FILE --route NAME"]
        : table([["route", "revision", "task", "labels"], ...routes.map(rowOf)]),
  };
}

function rowOf({ name, task, labels, shadows, ...target }: ListedRoute): (string | number)[] {
  const beside = shadows.map((revision) => `shadow ${revision.slice(0, SHORT)}`);
  return [name, [revisionsOf(target), ...beside].join(", "), task ?? "", labels ?? ""];
}

async function listHistory(name: string | undefined, options: ControlOptions): Promise<Outcome> {
  const history = await (await openControl(options, "read")).history(name);
  const line = ({ at, by, action, route, generation, before, after, reason }: ListedChange) => [
    at,
    generation,
    route ?? "",
    action,
    `${before ? revisionsOf(before) : "nothing"} -> ${after ? revisionsOf(after) : "nothing"}`,
    by,
    reason,
  ];
  return {
    data: { history },
    text: table([
      ["at", "generation", "route", "action", "from and to", "by", "reason"],
      ...history.map(line),
    ]),
  };
}

async function removeRoute(name: string, options: ControlOptions): Promise<Outcome> {
  await (await openControl(options, "change")).remove(name);
  return { data: { removed: name }, text: [`removed ${name}`] };
}

function revisionsOf({ revisions }: Pick<ListedRoute, "revisions">): string {
  const sum = revisions.reduce((total, { weight }) => total + weight, 0);
  const share = (weight: number) =>
    revisions.length === 1 ? "" : ` (${Math.round((100 * weight) / sum)} %)`;
  return revisions.map(({ revision, weight }) => `${revision.slice(0, SHORT)}${share(weight)}`).join(", ");
}
