/**
 * Loaded ahead of everything into each thread of a server that is to be hurt: a worker thread that finds the file
 * CRASH_FILE takes it away and ends, as one would that had run out of memory.
 */
const { unlinkSync } = require("node:fs");
const { isMainThread } = require("node:worker_threads");

const path = process.env.CRASH_FILE;
if (!isMainThread && path) {
  setInterval(() => {
    try {
      unlinkSync(path);
    } catch {
      return;
    }
    process.exit(13);
  }, 5).unref();
}
