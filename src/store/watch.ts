/** Notices when another process, or this one, has changed a store. */
import { type FSWatcher, watch } from "node:fs";
import { stat } from "node:fs/promises";
import { basename } from "node:path";
import type { Layout } from "./layout.js";

/**
 * Calls back when the index has been replaced, with its new version; several changes may be one call. The system's
 * notices make it quick, a look every so often makes it sure. It keeps no process alive.
 * @param every milliseconds between two looks
 * @returns ends it
 */
export async function watchLayout(
  layout: Layout,
  changed: (version: string) => void,
  every: number,
): Promise<() => void> {
  let last = (await layout.read()).version;
  let mark = await markOf(layout.indexPath);
  let looking = false;
  let again = false;
  let ended = false;
  const look = async () => {
    if (looking) {
      again = true;
      return;
    }
    looking = true;
    do {
      again = false;
      const now = await markOf(layout.indexPath);
      if (now === mark) continue;
      // A store that cannot be read just now is looked at again.
      const version = await layout.read().then(
        (snapshot) => snapshot.version,
        () => undefined,
      );
      if (version === undefined) continue;
      mark = now;
      if (version !== last && !ended) changed(version);
      last = version;
    } while (again && !ended);
    looking = false;
  };
  const timer = setInterval(() => void look(), every);
  timer.unref();
  const watcher = startWatcher(layout, () => void look());
  return () => {
    ended = true;
    clearInterval(timer);
    watcher?.close();
  };
}

/** Some file systems have no notices; then the looks must do. */
function startWatcher(layout: Layout, notice: () => void): FSWatcher | undefined {
  try {
    const watcher = watch(layout.directory, { persistent: false }, (_, name) => {
      if (name === null || name === basename(layout.indexPath)) notice();
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
