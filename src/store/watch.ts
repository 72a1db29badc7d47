/** Notices when somebody else has changed a store. */
import { type FSWatcher, watch } from "node:fs";
import { basename } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Layout } from "./layout.js";

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
  let { version: last } = await layout.read();
  let looking = false;
  let again = false;
  let ended = false;
  const look = async () => {
    again = true;
    if (looking) return;
    looking = true;
    while (again && !ended) {
      again = false;
      // A store that cannot be read just now is looked at again.
      const version = await layout.versionByMark().catch(() => last);
      if (version !== last && !ended && !layout.isOwn(version)) changed(version);
      last = version;
      await sleep(PAUSE, undefined, { ref: false });
    }
    looking = false;
  };
  const watchers = new Map<string, FSWatcher>();
  const notice = (folder: string, concerns: (name: string) => boolean) => {
    if (watchers.has(folder)) return;
    const watcher = startWatcher(folder, concerns, () => void look());
    if (watcher) watchers.set(folder, watcher);
  };
  // A folder that is not there yet may come; on some file systems there are no notices, then the looks must do.
  const begin = () => {
    notice(layout.directory, (name) => name === basename(layout.indexPath));
    notice(layout.changes.folder, (name) => !layout.isOwnChange(name));
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

/** Calls back when something in a folder changes, unless the file that it is about is known and of no concern. */
function startWatcher(
  folder: string,
  concerns: (name: string) => boolean,
  notice: () => void,
): FSWatcher | undefined {
  try {
    const watcher = watch(folder, { persistent: false }, (_, name) => {
      if (name === null || concerns(name)) notice();
    });
    watcher.on("error", () => watcher.close());
    return watcher;
  } catch {
    return undefined;
  }
}
