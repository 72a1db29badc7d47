/**
 * What a server may answer, kept by whoever changes it: every change with the time when it was asked for, the time when
 * it was acknowledged, and the generation that the server named. An answer is judged afterwards, when all of that is
 * known: its scores must be those of the revisions that it names, and these must have been live together in its
 * generation, between its request and its arrival.
 */

/**
 * @typedef {ReadonlyMap<string, string>} State the revision of every route
 * @typedef {{ state: State, asked: number, acknowledged: number, generation: number | undefined, epoch: number }} Entry
 * @typedef {{ routes: readonly string[], input: number, sent: number, received: number, epoch: number,
 *   answer: import("./clients.js").InferAnswer }} Exchange
 */

/** Largest difference of scores: rows that ran in a batch are summed in another order. */
const TOLERANCE = 1e-4;

/** The changes of one server, over its restarts. */
export class Record {
  /** @type {Entry[]} */
  #entries = [];
  epoch = 0;

  /** What is known to be live; what an acknowledged change made of it. */
  get state() {
    return this.#entries.at(-1)?.state ?? new Map();
  }

  /**
   * A server began to run with this.
   * @param {State} state
   */
  begin(state) {
    const now = performance.now();
    this.epoch++;
    this.#entries.push({ state, asked: now, acknowledged: now, generation: 0, epoch: this.epoch });
  }

  /**
   * A change that was acknowledged; without a generation when the server named none.
   * @param {State} state
   * @param {number} asked
   * @param {number} [generation]
   */
  acknowledge(state, asked, generation) {
    this.#entries.push({ state, asked, acknowledged: performance.now(), generation, epoch: this.epoch });
  }

  /**
   * What is wrong with an answer; undefined for nothing.
   * @param {Exchange} exchange
   * @param {ReadonlyMap<string, readonly Float32Array[]>} expected by revision, for each input
   * @param {State | undefined} pending what a change makes that was asked for and never answered
   * @returns {"not live" | "mixed" | "wrong" | undefined}
   */
  judge({ routes, input, sent, received, epoch, answer }, expected, pending) {
    const named = new Map(answer.routes.map(({ route, revision }) => [route, revision]));
    if (named.size !== routes.length || routes.some((route) => !named.has(route))) return "wrong";
    for (const { revision, scores } of answer.routes) {
      const want = expected.get(revision)?.[input];
      if (!want || want.length !== scores.length) return "wrong";
      if (want.some((value, at) => !(Math.abs(value - (scores[at] ?? Number.NaN)) <= TOLERANCE)))
        return "wrong";
    }
    const isIn = (/** @type {State} */ state) =>
      routes.every((route) => state.get(route) === named.get(route));
    const own = this.#entries.filter((entry) => entry.epoch === epoch);
    const live = own.filter(({ asked }, at) => {
      const next = own[at + 1];
      return asked <= received && (!next || next.acknowledged >= sent);
    });
    // A generation belongs to the last change that is known to be no younger, or to one whose generation is unknown.
    const last = own.findLastIndex(
      ({ generation }) => generation !== undefined && generation <= answer.generation,
    );
    const next = own.findIndex(({ generation }, at) => at > last && generation !== undefined);
    const possible = own.slice(Math.max(last, 0), next < 0 ? undefined : next).map(({ state }) => state);
    if (pending && next < 0) possible.push(pending);
    const inTime = [...live.map(({ state }) => state), ...(pending ? [pending] : [])];
    if (!possible.some(isIn)) {
      const isEachLive = routes.every((route) =>
        inTime.some((state) => state.get(route) === named.get(route)),
      );
      return isEachLive ? "mixed" : "not live";
    }
    return inTime.some(isIn) ? undefined : "not live";
  }

  /**
   * Whether a route may have been missing at some time of a request.
   * @param {Exchange} exchange
   * @param {string} route
   */
  mayMiss({ sent, received, epoch }, route) {
    const own = this.#entries.filter((entry) => entry.epoch === epoch);
    return own.some(({ state, asked }, at) => {
      const next = own[at + 1];
      return !state.has(route) && asked <= received && (!next || next.acknowledged >= sent);
    });
  }
}

/** Times during which failures of one kind are to be expected. */
export class Troubles {
  /** @type {{ kind: string, from: number, to: number }[]} */
  #times = [];

  /**
   * @param {string} kind
   * @returns {(more?: number) => void} ends it, so many milliseconds from now
   */
  begin(kind) {
    const time = { kind, from: performance.now(), to: Number.POSITIVE_INFINITY };
    this.#times.push(time);
    return (more = 0) => {
      time.to = performance.now() + more;
    };
  }

  /**
   * @param {string} kind
   * @param {number} sent
   * @param {number} received
   */
  explain(kind, sent, received) {
    return this.#times.some((time) => time.kind === kind && time.from <= received && time.to >= sent);
  }
}
