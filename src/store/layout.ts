/**
 * The folder of a store: an OCI image layout, and `.polyhead` beside it for the newest changes of the routes, for the lock
 * and for unfinished files. All that is true of a store follows from `index.json` and the changes since it was written;
 * whoever replaces the one or adds to the others has changed the store, at once and as a whole.
 */
import { lstatSync } from "node:fs";
import { readdir, realpath } from "node:fs/promises";
import { dirname, isAbsolute, join, relative, resolve, sep } from "node:path";
import { asError, PolyheadError } from "../base/errors.js";
import { makeFolder } from "../files/disk.js";
import { BlobStore } from "./blobs.js";
import { type ChangeFile, ChangeFiles, changeFile } from "./change-files.js";
import { type Digest, digestOf } from "./digest.js";
import { damaged, flushFolder, readRegular, writeDurable } from "./durable.js";
import { jsonBytes, parseObject } from "./json.js";
import { type Held, Lock } from "./lock.js";
import { EMPTY_INDEX, type ImageIndex, INDEX_LIMIT, indexBytes, parseIndex } from "./oci.js";
import type { Change } from "./routes.js";

const OWN = ".polyhead";
const LAYOUT_FILE = "oci-layout";
const INDEX_FILE = "index.json";
const LAYOUT_VERSION = "1.0.0";
const LAYOUT_LIMIT = 4096;
/** More than anybody is late in looking at them. */
const OWN_VERSIONS = 256;

/** What leads to all else, at one time. */
export interface Snapshot {
  /** Equal versions are equal stores. */
  readonly version: string;
  readonly index: ImageIndex;
  /** Digest of `index.json`. */
  readonly digest: Digest;
  /** Changes of the routes, oldest first; those that the index has already are among them. */
  readonly changes: readonly ChangeFile[];
}

interface IndexFile {
  /** See {@link markOf}. */
  readonly mark: string;
  readonly bytes: Uint8Array;
  readonly digest: Digest;
  readonly index: ImageIndex;
}

/** The version of a store by the digest of its index and the changes beside it. */
export function versionOf(index: Digest, changes: readonly ChangeFile[]): string {
  return `${index} ${changes.at(-1)?.name ?? ""}`;
}

/** A folder that is a store. */
export class Layout {
  readonly directory: string;
  readonly temporaries: string;
  readonly blobs: BlobStore;
  readonly changes: ChangeFiles;
  readonly lock: Lock;
  /** The newest versions that were made here, and the newest files of changes; said before anybody can see them. */
  readonly #own = new Set<string>();
  readonly #ownChanges = new Set<string>();
  /** What was read or written last under a lock that may still be held. */
  #kept: { readonly held: Held; readonly snapshot: Snapshot; readonly mark: string } | undefined;
  /** The index that was read or written last. */
  #last: IndexFile | undefined;

  private constructor(directory: string, lockWait: number) {
    this.directory = directory;
    this.temporaries = join(directory, OWN, "unfinished");
    this.blobs = new BlobStore(join(directory, "blobs", "sha256"), this.temporaries);
    this.changes = new ChangeFiles(join(directory, OWN, "changes"), this.temporaries);
    this.lock = new Lock(join(directory, OWN, "claims"), this.temporaries, lockWait);
  }

  /**
   * Opens a folder as a store.
   * @param create makes a store of an empty or missing folder
   * @throws PolyheadError STORE_REFUSED, STORE_DAMAGED, STORE_LOCKED, FILE_NOT_FOUND, FILE_NOT_WRITTEN
   */
  static async open(directory: string, create: boolean, lockWait: number): Promise<Layout> {
    const layout = new Layout(resolve(directory), lockWait);
    const names = await contentOf(layout.directory);
    if (names) await layout.#refuseLinks();
    if (!names?.includes(LAYOUT_FILE)) {
      if (names && names.length > 0 && !isUnfinished(names)) throw notStore(directory, names);
      if (!create) throw noStore(directory);
      await layout.#create();
    }
    await layout.#refuseOtherVersions();
    return layout;
  }

  /** Where `index.json` lies. */
  get indexPath(): string {
    return join(this.directory, INDEX_FILE);
  }

  /**
   * The changes are listed first: those that are sealed and taken away meanwhile are in the index then.
   * @throws PolyheadError STORE_DAMAGED, LIMIT_EXCEEDED
   */
  async read(): Promise<Snapshot> {
    const changes = this.changes.list();
    const { digest, index } = await this.#readIndex();
    return { version: versionOf(digest, changes), digest, index, changes };
  }

  /**
   * The same with the lock held: read once for all that is done until it is given back, unless somebody who does not care
   * for locks has touched the store.
   */
  async readHeld(held: Held): Promise<Snapshot> {
    const mark = this.#mark();
    if (this.#kept?.held === held && this.#kept.mark === mark) return this.#kept.snapshot;
    const snapshot = await this.read();
    this.#kept = { held, snapshot, mark };
    return snapshot;
  }

  /** Reads anew what was read with a lock, as something did not go as it should. */
  distrust(): void {
    this.#kept = undefined;
  }

  #keep(held: Held, snapshot: Snapshot): void {
    this.#kept = { held, snapshot, mark: this.#mark() };
  }

  /** Differs when a snapshot does, up to the grain of the file system's clock. Asking another thread would take far longer. */
  #mark(): string {
    return [this.indexPath, this.changes.folder].map(markOf).join(" ");
  }

  /** The version now, by an index that is read only when its mark is another one. */
  async versionByMark(): Promise<string> {
    const changes = this.changes.list();
    const isKnown = this.#last?.mark === markOf(this.indexPath);
    const { digest } = this.#last && isKnown ? this.#last : await this.#readIndex();
    return versionOf(digest, changes);
  }

  async #readIndex(): Promise<IndexFile> {
    const mark = markOf(this.indexPath);
    const bytes = await readRegular(this.indexPath, INDEX_LIMIT);
    if (!bytes) throw damaged("The store has no index.json. Restore it from a copy.", { file: INDEX_FILE });
    const last = this.#last;
    this.#last =
      last && Buffer.compare(last.bytes, bytes) === 0
        ? { ...last, mark }
        : { mark, bytes, digest: digestOf([bytes]), index: parseIndex(bytes, "The store's index.json") };
    return this.#last;
  }

  /**
   * Replaces the index; to be called with the lock held.
   * @throws PolyheadError FILE_NOT_WRITTEN, LIMIT_EXCEEDED
   */
  async write(held: Held, { changes }: Snapshot, index: ImageIndex): Promise<void> {
    this.distrust();
    const bytes = indexBytes(index);
    const digest = digestOf([bytes]);
    const version = versionOf(digest, changes);
    addNewest(this.#own, version);
    await writeDurable(this.indexPath, [bytes], this.temporaries);
    this.#last = { mark: markOf(this.indexPath), bytes, digest, index };
    this.#keep(held, { version, digest, index, changes });
  }

  /**
   * Adds a change of the routes; to be called with the lock held.
   * @param sealed a change that the index has already, whose file becomes the new one's
   * @throws PolyheadError FILE_NOT_WRITTEN, LIMIT_EXCEEDED
   */
  async append(
    held: Held,
    { digest, index, changes }: Snapshot,
    change: Change,
    sealed: ChangeFile | undefined,
  ): Promise<ChangeFile> {
    this.distrust();
    const { file, bytes } = changeFile(change);
    const version = versionOf(digest, [file]);
    addNewest(this.#own, version);
    addNewest(this.#ownChanges, file.name);
    await this.changes.put(file, bytes, sealed);
    const rest = changes.filter((each) => each !== sealed);
    this.#keep(held, { version, digest, index, changes: [...rest, file] });
    return file;
  }

  /** Whether a version was made here, and not by another process or object. */
  isOwn(version: string): boolean {
    return this.#own.has(version);
  }

  /** Whether the file of a change was made here. */
  isOwnChange(name: string): boolean {
    return this.#ownChanges.has(name);
  }

  /** The own folder comes first and the layout file last, so that a beginning is known for what it is. */
  async #create(): Promise<void> {
    try {
      await makeFolder(join(this.directory, OWN));
    } catch (thrown) {
      const cause = asError(thrown);
      const message = `The store's folder cannot be made: ${cause.message}`;
      throw new PolyheadError("FILE_NOT_WRITTEN", message, { path: this.directory }, { cause });
    }
    await this.lock.run(async () => {
      await makeFolder(this.changes.folder);
      await makeFolder(join(this.directory, "blobs", "sha256"));
      await flushFolder(join(this.directory, "blobs"));
      await flushFolder(join(this.directory, OWN));
      if (!(await readRegular(this.indexPath, INDEX_LIMIT)))
        await writeDurable(this.indexPath, [indexBytes(EMPTY_INDEX)], this.temporaries);
      const layout = jsonBytes({ imageLayoutVersion: LAYOUT_VERSION });
      await writeDurable(join(this.directory, LAYOUT_FILE), [layout], this.temporaries);
      await flushFolder(dirname(this.directory));
    });
  }

  /** Folders of the store may not be links that lead out of it. Files are held to that when they are opened. */
  async #refuseLinks(): Promise<void> {
    const root = await realpath(this.directory);
    for (const name of [
      "blobs",
      join("blobs", "sha256"),
      OWN,
      join(OWN, "changes"),
      join(OWN, "claims"),
      join(OWN, "unfinished"),
    ]) {
      const real = await realpath(join(root, name)).catch(() => undefined);
      if (real === undefined) continue;
      const inside = relative(root, real);
      if (inside !== ".." && !inside.startsWith(`..${sep}`) && !isAbsolute(inside)) continue;
      throw new PolyheadError("PATH_REFUSED", `The store's folder ${name} is a link that leads out of it.`, {
        path: name,
      });
    }
  }

  async #refuseOtherVersions(): Promise<void> {
    const bytes = await readRegular(join(this.directory, LAYOUT_FILE), LAYOUT_LIMIT);
    const { imageLayoutVersion } = bytes ? parseObject(bytes, "The file oci-layout") : {};
    if (imageLayoutVersion === LAYOUT_VERSION) return;
    throw new PolyheadError(
      "STORE_REFUSED",
      `The folder is an OCI image layout of version ${JSON.stringify(imageLayoutVersion)}; expected ${LAYOUT_VERSION}.`,
      { got: imageLayoutVersion, expected: LAYOUT_VERSION },
    );
  }
}

/** Differs whenever a file or folder is another one; empty where there is none. */
export function markOf(path: string): string {
  try {
    const { ino, mtimeNs, size } = lstatSync(path, { bigint: true });
    return `${ino} ${mtimeNs} ${size}`;
  } catch {
    return "";
  }
}

/** Adds to what was made here, and forgets the oldest. */
function addNewest(made: Set<string>, each: string): void {
  made.add(each);
  for (const oldest of made) {
    if (made.size <= OWN_VERSIONS) break;
    made.delete(oldest);
  }
}

/** The names in a folder; undefined when there is none. */
async function contentOf(directory: string): Promise<string[] | undefined> {
  try {
    return await readdir(directory);
  } catch (thrown) {
    const reason = thrown instanceof Error && "code" in thrown ? String(thrown.code) : String(thrown);
    if (reason === "ENOENT") return undefined;
    throw new PolyheadError(
      "STORE_REFUSED",
      `${directory} cannot be a store (${reason}); expected a folder, empty, missing or made by Polyhead.`,
      { path: directory, reason },
    );
  }
}

function isUnfinished(names: readonly string[]): boolean {
  return names.includes(OWN) && names.every((name) => [OWN, "blobs", INDEX_FILE].includes(name));
}

function notStore(directory: string, names: readonly string[]): PolyheadError {
  return new PolyheadError(
    "STORE_REFUSED",
    `${directory} is not a store: it has files (${names.slice(0, 3).join(", ")}) and no oci-layout among them. Name an empty or missing folder, or a store.`,
    { path: directory },
  );
}

function noStore(directory: string): PolyheadError {
  return new PolyheadError(
    "FILE_NOT_FOUND",
    `There is no store in ${directory}, and none is made when it is only read.`,
    { path: directory },
  );
}
