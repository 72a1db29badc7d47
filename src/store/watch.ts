/** Notices when somebody else has changed a store. */
import { type FSWatcher, watch } from "node:fs";
import { stat } from "node:fs/promises";
import { basename } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type Layout, versionOf } from "./layout.js";

/** Milliseconds between two looks at least, however many notices come: one change makes several. */
const PAUSE = 25;

/**
 * Calls back when the store has another version, which was not made by this object; several changes may be one call. The
 * system's notices make it quick, a look every so often makes it sure. It keeps no process alive.
 * @param every milliseconds between two looks
 * @returns ends it
 */
export async function watchLayout(
  layout: Layout,
  changed: (version: string) => void,
  every: number,
): Promise<() => void> {
  const mark = await markOf(layout.indexPath);
  const first = await layout.read();
  let last = first.version;
  let index = { mark, digest: first.digest };
  let looking = false;
  let again = false;
  let ended = false;
  /** The index is read only when it is another one. */
  const versionNow = async () => {
    const changes = await layout.changes.list();
    const mark = await markOf(layout.indexPath);
    if (mark !== index.mark) index = { mark, digest: (await layout.read()).digest };
    return versionOf(index.digest, changes);
  };
  const look = async () => {
    again = true;
    if (looking) return;
    looking = true;
    while (again && !ended) {
      again = false;
      // A store that cannot be read just now is looked at again.
      const version = await versionNow().catch(() => last);
      if (version !== last && !ended && !layout.isOwn(version)) changed(version);
      last = version;
      await sleep(PAUSE, undefined, { ref: false });
    }
    looking = false;
  };
  const watchers = new Map<string, FSWatcher>();
  const notice = (folder: string, name?: string) => {
    if (watchers.has(folder)) return;
    const watcher = startWatcher(folder, name, () => void look());
    if (watcher) watchers.set(folder, watcher);
  };
  // A folder that is not there yet may come; on some file systems there are no notices, then the looks must do.
  const begin = () => {
    notice(layout.directory, basename(layout.indexPath));
    notice(layout.changes.folder);
  };
  begin();
  const timer = setInterval(() => {
    begin();
    void look();
  }, every);
  timer.unref();
  return () => {
    ended = true;
    clearInterval(timer);
    for (const watcher of watchers.values()) watcher.close();
  };
}

/** Calls back when something in a folder changes, or the one file of it that is named. */
function startWatcher(folder: string, name: string | undefined, notice: () => void): FSWatcher | undefined {
  try {
    const watcher = watch(folder, { persistent: false }, (_, changed) => {
      if (name === undefined || changed === null || changed === name) notice();
    });
    watcher.on("error", () => watcher.close());
    return watcher;
  } catch {
    return undefined;
  }
}

/** Differs whenever the file is another one. */
async function markOf(path: string): Promise<string> {
  const found = await stat(path, { bigint: true }).catch(() => undefined);
  return found ? `${found.ino} ${found.mtimeNs} ${found.size}` : "";
}
