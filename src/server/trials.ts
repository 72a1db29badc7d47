/**
 * Canaries on trial: what each has done since its route was pointed at it, judged against the limits of the route.
 * A canary begins anew whenever its route is changed; what a revision did before does not count for or against it.
 */
import { isRetargeting, type Route } from "../store/index.js";
import { fromStored } from "./targets.js";

/** What a canary did with one request. */
export interface Observation {
  /** From admission to the answer. */
  readonly milliseconds: number;
  readonly failed: boolean;
  /** Rows that the main revision answered too, and the sum of their agreements. */
  readonly compared: number;
  readonly agreed: number;
}

interface Account {
  requests: number;
  failed: number;
  compared: number;
  agreed: number;
  /** Milliseconds of the newest answers. */
  readonly latest: number[];
}

interface Trial {
  readonly route: Route;
  /** By canary. */
  readonly accounts: Map<string, Account>;
}

/** Latencies that are remembered of each canary. */
const LATEST = 1000;

/** The trials of all routes that have a canary with limits. */
export class Trials {
  readonly #trials = new Map<string, Trial>();

  /** The routes as they are now: trials of routes that are as they were go on, others begin anew or end. */
  follow(routes: ReadonlyMap<string, Route>): void {
    for (const [name, { route }] of this.#trials)
      if (isRetargeting({ from: route, to: routes.get(name) ?? null })) this.#trials.delete(name);
    for (const [name, route] of routes) {
      if (this.#trials.has(name) || !route.limits || route.targets.length < 2) continue;
      this.#trials.set(name, { route, accounts: newAccounts(route) });
    }
  }

  /** Begins a route's trial anew. */
  restart(name: string): void {
    const route = this.#trials.get(name)?.route;
    if (route) this.#trials.set(name, { route, accounts: newAccounts(route) });
  }

  /** Ends a route's trial, until the route is changed or the trial restarted. */
  end(name: string): void {
    this.#trials.get(name)?.accounts.clear();
  }

  /** Counts what a revision did; of others than canaries on trial nothing is kept. */
  observe(name: string, revision: string, { milliseconds, failed, compared, agreed }: Observation): void {
    const account = this.#trials.get(name)?.accounts.get(revision);
    if (!account) return;
    account.requests++;
    if (failed) account.failed++;
    account.compared += compared;
    account.agreed += agreed;
    if (failed) return;
    account.latest.push(milliseconds);
    if (account.latest.length > LATEST) account.latest.shift();
  }

  /**
   * Why a canary has to go, in words for the history; undefined while it keeps its limits or has done too little to
   * be judged.
   */
  verdict(name: string, revision: string): string | undefined {
    const trial = this.#trials.get(name);
    const account = trial?.accounts.get(revision);
    const { limits } = trial ? fromStored(trial.route) : {};
    if (!account || !limits || account.requests < Math.max(1, limits.requests)) return undefined;
    const { requests, failed, compared, agreed, latest } = account;
    const { errorRate = 1, latency = Number.POSITIVE_INFINITY, agreement = 0 } = limits;
    const slowest = percentile99(latest);
    const reasons = [
      ...(failed / requests > errorRate
        ? [`${failed} of ${requests} requests failed, more than ${percent(errorRate)}`]
        : []),
      ...(slowest > latency
        ? [`the 99th percentile is ${slowest.toFixed(1)} ms, more than ${latency} ms`]
        : []),
      ...(compared > 0 && agreed / compared < agreement
        ? [
            `its ${compared} rows agree to ${percent(agreed / compared)} with the main revision's, less than ${percent(agreement)}`,
          ]
        : []),
    ];
    if (reasons.length === 0) return undefined;
    return `the canary ${revision.slice(0, 12)} crossed its limits: ${reasons.join("; ")}`;
  }
}

function newAccounts({ targets }: Route): Map<string, Account> {
  const none = () => ({ requests: 0, failed: 0, compared: 0, agreed: 0, latest: [] });
  return new Map(targets.slice(1).map(({ revision }) => [revision, none()]));
}

function percentile99(milliseconds: readonly number[]): number {
  const sorted = [...milliseconds].sort((a, b) => a - b);
  return sorted[Math.floor(0.99 * (sorted.length - 1))] ?? 0;
}

function percent(share: number): string {
  return `${Number((100 * share).toFixed(2))} %`;
}
