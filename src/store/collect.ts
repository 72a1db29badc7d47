/** Garbage collection: takes away what nothing leads to. To be called with the lock held. */
import { lstat, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Layout } from "./layout.js";
import { referenced } from "./references.js";

/** What was taken away. */
export interface Collected {
  readonly blobs: number;
  /** Files that were never finished. */
  readonly unfinished: number;
  /** Bytes of both. */
  readonly bytes: number;
}

/**
 * Takes away blobs that the index does not lead to, and unfinished files.
 * @param grace milliseconds for which such files are kept, because somebody may be about to use them
 * @throws PolyheadError STORE_DAMAGED when a manifest cannot be followed; then nothing is taken away
 */
export async function collectGarbage(layout: Layout, grace: number): Promise<Collected> {
  const { index } = await layout.read();
  const kept = await referenced(layout.blobs, index, new Map(), (_, reason) => {
    throw reason;
  });
  const before = Date.now() - grace;
  const swept = (await layout.blobs.list()).filter(
    ({ digest, modified }) => !kept.has(digest) && modified <= before,
  );
  for (const { digest } of swept) await layout.blobs.remove(digest);
  const unfinished = (await filesIn(layout.temporaries)).filter(({ modified }) => modified <= before);
  for (const { path } of unfinished) await rm(path, { force: true });
  const bytes = [...swept, ...unfinished].reduce((sum, { size }) => sum + size, 0);
  return { blobs: swept.length, unfinished: unfinished.length, bytes };
}

async function filesIn(folder: string) {
  const found: { path: string; size: number; modified: number }[] = [];
  for (const name of await readdir(folder).catch(() => [])) {
    const path = join(folder, name);
    const stat = await lstat(path).catch(() => undefined);
    if (stat?.isFile()) found.push({ path, size: stat.size, modified: Math.floor(stat.mtimeMs) });
  }
  return found;
}
