/** Work on many things, a few at a time. */

/**
 * What `work` gives for each item, in the order of the items, with at most `inFlight` of them under way. When one fails
 * no new one begins, and the first failure is thrown after all that had begun have ended.
 */
export async function mapInFlight<Item, Result>(
  items: readonly Item[],
  inFlight: number,
  work: (item: Item, at: number) => Promise<Result>,
): Promise<Result[]> {
  const results = new Map<number, Result>();
  const waiting = items.entries();
  let hasFailed = false;
  const worker = async () => {
    for (const [at, item] of waiting) {
      if (hasFailed) return;
      try {
        results.set(at, await work(item, at));
      } catch (thrown) {
        hasFailed = true;
        throw thrown;
      }
    }
  };
  const outcomes = await Promise.allSettled(Array.from({ length: Math.max(1, inFlight) }, worker));
  for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
  return items.map((_, at) => results.get(at) as Result);
}
