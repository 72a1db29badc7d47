/**
 * Checkpoints of a training: all that is needed to go on as if it had never stopped, in a folder of its own. Arrays
 * (parameters, the optimiser's state) stand in a `.npz` file that is named by its content; `checkpoint.json` names that
 * file with its digest, and says at which step it was, of which training. The JSON file is put in its place last and
 * whole, so that a training that is killed at any moment leaves the last checkpoint or the one before. One training
 * at a time may write to a folder; nothing here locks it.
 */
import { createHash } from "node:crypto";
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { asError, PolyheadError } from "../base/errors.js";
import { readNpz, writeNpz } from "../tensor/npz.js";
import type { Tensor } from "../tensor/tensor.js";
import { exists, readFileBytes, writeFileAtomic } from "./disk.js";

const VERSION = 1;
const FILE = "checkpoint.json";
const LARGEST_JSON = 2 ** 28;
const ARRAYS = /^step-\d+\.[0-9a-f]{16}\.npz$/;

/** Which training it is. What goes on with other settings or other data would be neither the one nor the other. */
export interface TrainingIdentity {
  /** All that the result depends on, the seed included; JSON-serialisable. */
  readonly settings: Readonly<Record<string, unknown>>;
  /** Digest of the data. */
  readonly data: string;
  /** Identity of the model that training began with. */
  readonly model: string;
}

/** Where a training stands. */
export interface TrainingState {
  /** Steps that are done. */
  readonly step: number;
  readonly arrays: ReadonlyMap<string, Tensor>;
  /** What else is to be known when it goes on (losses so far, say); JSON-serialisable. */
  readonly progress: unknown;
}

/** The checkpoints of one training. */
export class Checkpoints {
  readonly #folder: string;
  readonly #identity: TrainingIdentity;

  constructor(folder: string, identity: TrainingIdentity) {
    this.#folder = folder;
    // As it will be read again: without what JSON leaves out.
    this.#identity = JSON.parse(JSON.stringify(identity)) as TrainingIdentity;
  }

  /**
   * Keeps a state in place of the one before.
   * @throws PolyheadError FILE_NOT_WRITTEN; LIMIT_EXCEEDED for more than 4 GiB of arrays
   */
  async save({ step, arrays, progress }: TrainingState): Promise<void> {
    const bytes = writeNpz(arrays);
    const sha256 = createHash("sha256").update(bytes).digest("hex");
    const file = `step-${step}.${sha256.slice(0, 16)}.npz`;
    await writeFileAtomic(join(this.#folder, file), bytes);
    const { settings, data, model } = this.#identity;
    const about = { version: VERSION, step, arrays: { file, sha256 }, data, model, settings, progress };
    await writeFileAtomic(join(this.#folder, FILE), `${JSON.stringify(about, undefined, 2)}\n`);
    await this.#removeOthers(file);
  }

  /**
   * The last state that was kept; undefined when there is none.
   * @throws PolyheadError INVALID_ARGUMENT for the checkpoint of another training, naming what differs;
   *   DATA_MALFORMED for a damaged one
   */
  async load(): Promise<TrainingState | undefined> {
    const path = join(this.#folder, FILE);
    if (!(await exists(path))) return undefined;
    const about = this.#parse(await readFileBytes(path, LARGEST_JSON));
    this.#requireSame(about);
    const { file, sha256 } = about.arrays;
    const bytes = await readFileBytes(join(this.#folder, file)).catch((thrown) => {
      throw this.#damaged(`${file} cannot be read (${asError(thrown).message})`);
    });
    if (createHash("sha256").update(bytes).digest("hex") !== sha256) {
      throw this.#damaged(`${file} is not what was written`);
    }
    return { step: about.step, arrays: readNpz(bytes), progress: about.progress };
  }

  /** Forgets the training, so that the next one begins anew; the folder stays. */
  async clear(): Promise<void> {
    await rm(join(this.#folder, FILE), { force: true });
    await this.#removeOthers("");
  }

  #parse(bytes: Uint8Array): About {
    let about: Partial<About>;
    try {
      about = Object(JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)));
    } catch (thrown) {
      throw this.#damaged(`${FILE} is not JSON (${asError(thrown).message})`);
    }
    const { version, step, arrays, data, model, settings } = about;
    if (version !== VERSION) throw this.#damaged(`${FILE} has the version ${version}; expected ${VERSION}`);
    const isWhole =
      Number.isInteger(step) &&
      ARRAYS.test(arrays?.file ?? "") &&
      typeof arrays?.sha256 === "string" &&
      typeof data === "string" &&
      typeof model === "string" &&
      typeof settings === "object";
    if (isWhole) return about as About;
    throw this.#damaged(`${FILE} lacks something`);
  }

  #requireSame(about: About): void {
    const { data, model, settings } = this.#identity;
    const names = new Set([...Object.keys(settings), ...Object.keys(about.settings ?? {})]);
    const text = (value: unknown) => (value === undefined ? "nothing" : JSON.stringify(value));
    const differing = [...names]
      .filter((name) => text(sorted(settings[name])) !== text(sorted(about.settings[name])))
      .map((name) => `${name} was ${text(about.settings[name])} and is ${text(settings[name])}`);
    if (about.data !== data) differing.push("the data is not the same");
    if (about.model !== model) differing.push("the model is not the same");
    if (differing.length === 0) return;
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `The checkpoint in ${this.#folder} is of another training: ${differing.join("; ")}. Go on with what it began with, or choose another folder.`,
      { folder: this.#folder, differing },
    );
  }

  #damaged(reason: string): PolyheadError {
    return new PolyheadError(
      "DATA_MALFORMED",
      `The checkpoint in ${this.#folder} is damaged: ${reason}. Remove the folder to begin anew.`,
      { folder: this.#folder, reason },
    );
  }

  /** Arrays of earlier checkpoints, and of one that was killed before its JSON was in place. */
  async #removeOthers(keep: string): Promise<void> {
    for (const name of await readdir(this.#folder).catch(() => [])) {
      const isOther = ARRAYS.test(name) && name !== keep;
      const isUnfinished = /^(step-\d+\.[0-9a-f]{16}\.npz|checkpoint\.json)\..*\.part$/.test(name);
      if (isOther || isUnfinished) await rm(join(this.#folder, name), { force: true });
    }
  }
}

/** `checkpoint.json`. */
interface About extends TrainingIdentity {
  readonly version: number;
  readonly step: number;
  readonly arrays: { readonly file: string; readonly sha256: string };
  readonly progress: unknown;
}

/** The value with the keys of all objects in order, so that equal settings have equal texts. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== "object" || value === null) return value;
  const fields = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(fields.map(([name, each]) => [name, sorted(each)]));
}
