/**
 * Memory of requests, freed at once or kept for the next one. Array buffers that nobody reads wait for the collector of
 * garbage, and V8 counts what waits: a server that reads some megabytes a request would have it mark the whole heap every
 * ten requests. And memory that is new to the process is cleared by the system page by page, which takes longer than to
 * copy a request into it.
 */

/** Bytes that may wait for their next use; each thread has its own. */
const KEPT = 2 ** 23;
/** Smaller blocks cost little. */
const WORTH_KEEPING = 2 ** 16;

const kept: ArrayBuffer[] = [];
let keptBytes = 0;

const { port1: nowhere } = new MessageChannel();
nowhere.close();

/**
 * Frees the memory behind a view that nobody reads any more; the view is empty afterwards, as are all others over the
 * same memory. Views of a part are left alone: somebody else may use the rest.
 */
export function freeNow({ buffer, byteLength }: ArrayBufferView): void {
  if (buffer instanceof ArrayBuffer && byteLength > 0 && byteLength === buffer.byteLength) free(buffer);
}

/** Keeps memory that nobody reads any more for {@link keptMemory}; it has what it had. */
export function keepMemory(buffer: ArrayBuffer): void {
  if (buffer.byteLength < WORTH_KEEPING) return;
  kept.push(buffer);
  keptBytes += buffer.byteLength;
  while (keptBytes > KEPT) {
    const oldest = kept.shift();
    if (!oldest) return;
    keptBytes -= oldest.byteLength;
    free(oldest);
  }
}

/** Kept memory of at least so many bytes and not much more, with anything in it; undefined when there is none. */
export function keptMemory(bytes: number): ArrayBuffer | undefined {
  const [best] = kept
    .filter(({ byteLength }) => byteLength >= bytes && byteLength <= 2 * bytes)
    .sort((a, b) => a.byteLength - b.byteLength);
  if (!best) return undefined;
  kept.splice(kept.indexOf(best), 1);
  keptBytes -= best.byteLength;
  return best;
}

/** A message to a closed port is dropped, and with it the memory that moved into it. */
function free(buffer: ArrayBuffer): void {
  nowhere.postMessage(null, [buffer]);
}
