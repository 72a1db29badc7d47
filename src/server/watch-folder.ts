/**
 * A folder whose model files go live: `food.onnx` is for the route `food`. A file counts once it has lain unchanged
 * for a moment, so that half-written ones are not read; it goes live when it loads and proves valid, and is left alone
 * otherwise until it changes. Nothing in the folder is ever written, and a file that is taken away changes nothing.
 */
import { readdir, stat } from "node:fs/promises";
import { basename, extname, join } from "node:path";
import { asPolyheadError, PolyheadError } from "../base/errors.js";
import { loadModel } from "../files/disk.js";
import { toEvaluation } from "../onnx/evaluation.js";
import { readMetadata } from "../onnx/metadata.js";
import type { Model } from "../onnx/model.js";
import { revisionOf } from "../onnx/revision.js";

/** What a folder's files go to. */
export interface WatchTarget {
  /** Makes a model in evaluation mode answer for a route. @throws PolyheadError what loading throws */
  putLive(
    model: Model,
    route: string,
    author: { readonly by: string; readonly reason: string },
  ): Promise<string>;
  /** Keeps a model for others to read. @throws PolyheadError what loading throws */
  keep(model: Model, title: string): Promise<string>;
  /** Whether a revision was ever behind a route. */
  knows(route: string, revision: string): boolean;
}

/** Told what became of a file. */
export type WatchLog = (event: Readonly<Record<string, unknown>>) => void;

/** Milliseconds between two looks; a file that two looks find alike is complete. */
const LOOK = 500;
/** A file and what makes it another one. */
interface Found {
  readonly name: string;
  readonly mark: string;
}

/**
 * Follows a folder from now on. Files that are there already go live too, but not those that the history of their
 * route knows: who rolled back from one does not find it live again after a restart.
 * @param every milliseconds between two looks
 * @returns ends it, when the file that is under way is done
 * @throws PolyheadError FILE_NOT_FOUND when it is no folder that can be read
 */
export async function watchFolder(
  folder: string,
  target: WatchTarget,
  log: WatchLog,
  every = LOOK,
): Promise<() => Promise<void>> {
  const watched = new WatchedFolder(folder, target, log);
  try {
    await readdir(folder);
  } catch (thrown) {
    throw new PolyheadError(
      "FILE_NOT_FOUND",
      `The folder ${JSON.stringify(folder)} to be watched cannot be read; make it first.`,
      { path: folder },
      { cause: thrown },
    );
  }
  let ended = false;
  let look: Promise<void> = Promise.resolve();
  let timer: NodeJS.Timeout | undefined;
  const next = () => {
    look = watched.look().finally(() => {
      if (!ended) timer = setTimeout(next, every).unref();
    });
  };
  next();
  return async () => {
    ended = true;
    clearTimeout(timer);
    await look;
  };
}

class WatchedFolder {
  readonly #folder: string;
  readonly #target: WatchTarget;
  readonly #log: WatchLog;
  /** Marks of the last look. */
  #before = new Map<string, string>();
  /** Marks of files that are done with, whatever became of them. */
  readonly #done = new Map<string, string>();
  /** Files that found nothing to read; another file may bring it. */
  readonly #waiting = new Set<string>();
  /** Files of the first look. */
  #first: ReadonlyMap<string, string> | undefined;

  constructor(folder: string, target: WatchTarget, log: WatchLog) {
    this.#folder = folder;
    this.#target = target;
    this.#log = log;
  }

  /** Puts what is new and complete live, one after the other. */
  async look(): Promise<void> {
    const found = await this.#files();
    if (!found) return;
    this.#first ??= new Map(found.map(({ name, mark }) => [name, mark]));
    const complete = found.filter(({ name, mark }) => this.#before.get(name) === mark);
    this.#before = new Map(found.map(({ name, mark }) => [name, mark]));
    for (const name of this.#done.keys()) if (!this.#before.has(name)) this.#done.delete(name);
    for (let again = true; again; ) {
      again = false;
      for (const file of complete) {
        if (this.#done.get(file.name) === file.mark) continue;
        this.#done.set(file.name, file.mark);
        if (!(await this.#take(file))) continue;
        for (const name of this.#waiting) this.#done.delete(name);
        again = this.#waiting.size > 0;
        this.#waiting.clear();
      }
    }
  }

  /** Undefined when the folder cannot be read just now. */
  async #files(): Promise<Found[] | undefined> {
    const names = await readdir(this.#folder).catch(() => undefined);
    const models = names?.filter((name) => extname(name) === ".onnx" && !name.startsWith(".")).sort();
    if (!models) return undefined;
    const found = await Promise.all(
      models.map(async (name) => {
        const file = await stat(join(this.#folder, name), { bigint: true }).catch(() => undefined);
        return file?.isFile() ? [{ name, mark: `${file.ino} ${file.mtimeNs} ${file.size}` }] : [];
      }),
    );
    return found.flat();
  }

  /** @returns whether there is a model more than before */
  async #take({ name, mark }: Found): Promise<boolean> {
    const route = basename(name, ".onnx");
    try {
      const { model } = toEvaluation(await loadModel(join(this.#folder, name)));
      const { role } = readMetadata(model);
      if (role === "backbone" || role === "adapter") {
        const revision = await this.#target.keep(model, name);
        this.#log({
          level: "info",
          what: "watch",
          file: name,
          revision,
          message: "kept for other models to read",
        });
        return true;
      }
      const isOld = this.#first?.get(name) === mark;
      if (isOld && this.#target.knows(route, await revisionOf(model))) return false;
      const author = { by: "watch", reason: `the file ${name}` };
      const revision = await this.#target.putLive(model, route, author);
      this.#log({ level: "info", what: "watch", file: name, route, revision, message: "live" });
      return true;
    } catch (thrown) {
      const { code, message } = asPolyheadError(thrown, "LOAD_FAILED", "The file did not load");
      if (code === "HEAD_MISMATCH") this.#waiting.add(name);
      this.#log({ level: "error", what: "watch", file: name, code, message });
      return false;
    }
  }
}
