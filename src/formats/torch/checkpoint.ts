/**
 * What of a file is meant: checkpoints keep weights in nested dicts beside optimisers and settings, under prefixes of
 * wrappers, and a head is a part of a larger model. Where the file leaves a choice, it is asked for, not made.
 */
import { PolyheadError } from "../../base/errors.js";
import { asTensor, isModule, joined, type PickledModule, stateOf, unwrapped, walk } from "./module.js";
import { PickledDict, PickledObject, unsupported } from "./objects.js";
import type { StoredTensor } from "./tensor.js";

/** Tensors by their dotted names. */
export type State = ReadonlyMap<string, StoredTensor>;

/** A module, or the weights of one. */
export type Subject =
  | { readonly kind: "module"; readonly module: PickledModule; readonly path: string }
  | {
      readonly kind: "state";
      readonly state: State;
      readonly path: string;
      /** All of the state that it was taken from. */
      readonly whole: State;
      /** Names of all modules that the file lists, those without weights included; empty when it lists none. */
      readonly modules: readonly string[];
    };

/** Keys under which checkpoints keep their model, the likeliest first. */
const USUAL_KEYS = [
  "state_dict",
  "model_state_dict",
  "model_state",
  "model",
  "net",
  "network",
  "module",
  "params",
  "weights",
];
/** Dicts within dicts go no deeper in any checkpoint that people write. */
const DEEPEST = 6;

/**
 * The module or the weights in what a file holds.
 * @param head the dotted path of a part
 * @throws PolyheadError MODEL_UNSUPPORTED when nothing is there or the choice is open; NOT_FOUND for an unknown part
 */
export function findSubject(root: unknown, head: string | undefined, notes: string[]): Subject {
  if (head === undefined) return chosen(root, "", notes, 0);
  const direct = keyedPart(root, head);
  if (direct)
    return direct.rest === ""
      ? chosen(direct.value, head, notes, 0)
      : findSubject(direct.value, direct.rest, notes);
  return partOf(chosen(root, "", notes, 0), head);
}

/** The entry of a dict of parts that a path begins with; the dict's own tensors are no parts. */
function keyedPart(root: unknown, head: string): { value: unknown; rest: string } | undefined {
  if (!(root instanceof Map) || root.has(head) === false) {
    const [first = "", ...others] = head.split(".");
    if (!(root instanceof Map) || others.length === 0 || !holdsWeights(root.get(first), 0)) return undefined;
    return { value: root.get(first), rest: others.join(".") };
  }
  return holdsWeights(root.get(head), 0) ? { value: root.get(head), rest: "" } : undefined;
}

function chosen(value: unknown, path: string, notes: string[], depth: number): Subject {
  if (isModule(value)) return { kind: "module", module: unwrapped(value), path };
  const state = stateIn(value);
  if (state.size > 0) return { kind: "state", state, path, whole: state, modules: listedModules(value) };
  const found = [...entriesOf(value)].filter(([, each]) => holdsWeights(each, depth));
  const names = found.map(([name]) => name);
  const usual = USUAL_KEYS.find((name) => names.includes(name));
  const name = names.length === 1 ? names[0] : usual;
  if (name === undefined) throw names.length === 0 ? holdsNothing(value) : openChoice(names);
  if (names.length > 1) {
    const others = names.filter((each) => each !== name);
    notes.push(
      `The model was taken from ${JSON.stringify(name)}; the file also has ${others.map((each) => JSON.stringify(each)).join(", ")}.`,
    );
  }
  return chosen(new Map(found).get(name), path, notes, depth + 1);
}

function stateIn(value: unknown): Map<string, StoredTensor> {
  const state = new Map<string, StoredTensor>();
  for (const [name, each] of entriesOf(value)) {
    const tensor = asTensor(each);
    if (tensor) state.set(name, tensor);
  }
  return state;
}

/** Entries with names; optimisers number theirs. */
function* entriesOf(value: unknown): Generator<[string, unknown]> {
  if (!(value instanceof Map)) return;
  for (const [name, each] of value) if (typeof name === "string") yield [name, each];
}

/** @param seen values that were looked through already: dicts may hold each other */
function holdsWeights(value: unknown, depth: number, seen = new Set<unknown>()): boolean {
  if (depth > DEEPEST || seen.has(value)) return false;
  if (isModule(value)) return true;
  if (value instanceof Map) seen.add(value);
  for (const [, each] of entriesOf(value))
    if (asTensor(each) || holdsWeights(each, depth + 1, seen)) return true;
  return false;
}

/** `state_dict()` notes every module's version, and so names them all. */
function listedModules(value: unknown): string[] {
  const metadata = value instanceof PickledDict ? value.attributes.get("_metadata") : undefined;
  return [...entriesOf(metadata)].flatMap(([name]) => (name === "" ? [] : [name]));
}

/** The part of a module or state at a path, which may leave out what stands before it if that is unambiguous. */
function partOf(subject: Subject, head: string): Subject {
  if (subject.kind === "module") {
    const all = [...walk(subject.module)].filter(({ path }) => path === head || path.endsWith(`.${head}`));
    const found = all.find(({ path }) => path === head) ?? (all.length === 1 ? all[0] : undefined);
    if (found) return { kind: "module", module: found.module, path: found.path };
    throw noPart(
      head,
      all.map(({ path }) => path),
      [...walk(subject.module)].map(({ path }) => path),
    );
  }
  const marker = `.${head}.`;
  const prefixes = new Set<string>();
  for (const name of subject.state.keys()) {
    const at = `.${name}`.indexOf(marker);
    if (at >= 0) prefixes.add(name.slice(0, at + head.length + 1));
  }
  const prefix = prefixes.has(`${head}.`) ? `${head}.` : prefixes.size === 1 ? [...prefixes][0] : undefined;
  if (prefix === undefined)
    throw noPart(
      head,
      [...prefixes].map((each) => each.slice(0, -1)),
      [...subject.state.keys()].map((name) => name.slice(0, Math.max(0, name.lastIndexOf(".")))),
    );
  const within = (names: readonly string[]) =>
    names.flatMap((name) => (name.startsWith(prefix) ? [name.slice(prefix.length)] : []));
  const state = new Map(
    [...subject.state].flatMap(([name, tensor]) =>
      name.startsWith(prefix) ? [[name.slice(prefix.length), tensor] as const] : [],
    ),
  );
  return { ...subject, state, path: prefix.slice(0, -1), modules: within(subject.modules) };
}

/**
 * States that a state may stand for: itself, and itself without each prefix that all its names share (`module.`,
 * `model.head.` and the like), the barest last.
 */
export function withoutPrefixes(state: State): State[] {
  const states = [state];
  for (let at: State = state; ; ) {
    const firsts = new Set([...at.keys()].map((name) => name.slice(0, name.indexOf(".") + 1)));
    const [prefix = ""] = firsts;
    if (firsts.size !== 1 || prefix === "") return states;
    at = new Map([...at].map(([name, tensor]) => [name.slice(prefix.length), tensor]));
    states.push(at);
  }
}

/** The weights of a subject, by names from its own place on. */
export function stateOfSubject(subject: Subject): State {
  return subject.kind === "state" ? subject.state : stateOf(subject.module);
}

/** Dotted names of all modules above tensors, in order. */
export function modulesOf(state: State): string[] {
  return [...new Set([...state.keys()].map((name) => name.slice(0, Math.max(0, name.lastIndexOf(".")))))];
}

function noPart(head: string, several: readonly string[], all: readonly string[]): PolyheadError {
  const unique = [...new Set(all)].filter((name) => name !== "");
  const last = unique.slice(-8);
  return new PolyheadError(
    "NOT_FOUND",
    several.length > 1
      ? `${several.length} parts of the model are called ${JSON.stringify(head)}: ${several.slice(0, 8).join(", ")}. Give the whole path.`
      : `The model has no part ${JSON.stringify(head)}; its last ones are ${last.join(", ") || "none"}.`,
    { head, expected: several.length > 1 ? several : unique.slice(-50) },
  );
}

function openChoice(names: readonly string[]): PolyheadError {
  return unsupported(
    `The file has weights in several places: ${names.join(", ")}. Say which: ${names
      .slice(0, 3)
      .map((name) => `--head ${joined("", name)}`)
      .join(", or ")}.`,
    { expected: names },
  );
}

function holdsNothing(value: unknown): PolyheadError {
  const what =
    value instanceof PickledObject
      ? `an object of ${value.className}`
      : value instanceof Map
        ? `a dict of ${
            [...entriesOf(value)]
              .map(([name]) => name)
              .slice(0, 12)
              .join(", ") || "nothing"
          }`
        : value === null
          ? "None"
          : asTensor(value)
            ? "a single tensor"
            : Array.isArray(value)
              ? "a list"
              : typeof value;
  return unsupported(
    `The file holds ${what}, and no module or weights of one; expected what torch.save(model, FILE) or torch.save(model.state_dict(), FILE) writes.`,
    { got: what },
  );
}
