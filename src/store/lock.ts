/**
 * One changer at a time, across processes. Whoever wants to change the store puts a claim into a folder and then looks at
 * the folder: with no other living claim there it holds the lock, else it takes its claim back and tries again a little
 * later. Of two that claim at the same time at least the second to look sees the other, so never both hold it.
 *
 * Where one change follows the other the lock is kept in between, so that it is paid for once: as long as nobody else
 * wishes for it, which is looked after every {@link TICK} milliseconds, for no longer than {@link LINGER} milliseconds
 * without a change, and {@link LONGEST} in all. Who waits says so by a wish, and nobody claims before those who wished
 * earlier. A change that comes alone gives the lock back at once, unless another is expected; a process that ends gives it
 * back too.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { PolyheadError } from "../base/errors.js";
import { Claims, LEASE, PATIENCE } from "./claims.js";
import type { ProcessName } from "./process-name.js";

/** Milliseconds between two renewals of a claim. */
const RENEWAL = LEASE / 5;
/** Milliseconds for which a claim that was seen is taken to be there: far less than others wait before they take it for dead. */
const SEEN = LEASE / 10;
/** Milliseconds between two changes at most that count as one after the other. */
const LINGER = 300;
/** Milliseconds after which it is given back and taken anew all the same. */
const LONGEST = 1000;
/** Changes one after the other from which on more are expected. */
const STREAK = 3;
/** Milliseconds between two looks for those who wait. */
const TICK = 50;
/** Longest pause between two tries. */
const PAUSE = 20;

/** A lock that is held: the same object for as long as nobody else can have held it. */
export interface Held {
  /**
   * To be called right before a change becomes visible.
   * @throws PolyheadError STORE_LOCKED when another process took this one for dead
   */
  confirm(): Promise<void>;
}

/** What is known of some work. */
export interface RunOptions {
  /** Whether more is expected to follow at once. */
  readonly isMoreToCome?: boolean;
}

/** The lock of a store. */
export class Lock {
  readonly #claims: Claims;
  readonly #wait: number;
  /** The callers in this process, one after the other. */
  #last: Promise<unknown> = Promise.resolve();
  #waiting = 0;
  #hold: Hold | undefined;
  /** The claim that is being taken back. */
  #ending: Promise<void> = Promise.resolve();
  /** When the last work was done, and how much of it since there was a pause. */
  #worked = Number.NEGATIVE_INFINITY;
  #streak = 0;

  /** @param wait milliseconds after which a caller gives up */
  constructor(claims: string, temporaries: string, wait: number) {
    this.#claims = new Claims(claims, temporaries);
    this.#wait = wait;
  }

  /**
   * Does some work while nobody else does any.
   * @throws PolyheadError STORE_LOCKED, FILE_NOT_WRITTEN, and what the work throws
   */
  run<T>(work: (held: Held) => Promise<T>, options: RunOptions = {}): Promise<T> {
    this.#waiting++;
    const turn = this.#last.then(() => this.#work(work, options));
    this.#last = turn.catch(() => {});
    return turn;
  }

  async #work<T>(work: (held: Held) => Promise<T>, { isMoreToCome = false }: RunOptions): Promise<T> {
    this.#waiting--;
    this.#streak = performance.now() - this.#worked < LINGER ? this.#streak + 1 : 1;
    const hold = this.#hold ?? (await this.#acquire());
    this.#hold = hold;
    hold.isBusy = true;
    try {
      return await work(hold);
    } finally {
      hold.isBusy = false;
      this.#worked = performance.now();
      const isKept = isMoreToCome || this.#streak >= STREAK || this.#waiting > 0;
      if (isKept && !hold.isSpent) hold.linger(() => this.#leave(hold));
      else {
        this.#leave(hold);
        await this.#ending;
      }
    }
  }

  /** Whoever acquires the lock anew waits until this is done. */
  #leave(hold: Hold): void {
    if (this.#hold !== hold) return;
    this.#hold = undefined;
    this.#ending = hold.end();
    this.#ending.catch(() => {}); // heard by whoever waits for it
  }

  async #acquire(): Promise<Hold> {
    await this.#ending.catch(() => {}); // a claim that could not be taken back is found
    const claims = this.#claims;
    const deadline = performance.now() + this.#wait;
    let wish: string | undefined;
    let renewed = 0;
    try {
      for (;;) {
        let { holder, isWanted, isEarlier } = await claims.look({ wish });
        const isLate = performance.now() > deadline;
        if (!holder && (!isEarlier || isLate)) {
          const claim = await claims.claim();
          const seen = Date.now();
          ({ holder, isWanted } = await claims.look({ claim, wish }).catch(async (thrown) => {
            await claims.remove(claim);
            throw thrown;
          }));
          if (!holder) return new Hold(claims, claim, seen, isWanted);
          await claims.remove(claim);
        }
        if (isLate) throw locked(holder ?? {}, this.#wait, claims.folder);
        const now = performance.now();
        if (wish === undefined || now - renewed > PATIENCE / 4) {
          if (wish === undefined) wish = await claims.wish();
          else await claims.renew(wish);
          renewed = now;
        }
        await sleep(1 + Math.random() * PAUSE);
      }
    } finally {
      if (wish !== undefined) await claims.remove(wish).catch(() => {});
    }
  }
}

/** Locks that are kept between changes. */
const lingering = new Set<Hold>();
process.on("exit", () => {
  for (const hold of lingering) hold.endNow();
});

/** A claim that holds the lock. */
class Hold implements Held {
  /** Whether somebody works with it just now. */
  isBusy = true;
  /** Whether others wait for it or have taken it. */
  #isUnwelcome: boolean;
  readonly #since = performance.now();
  readonly #claims: Claims;
  readonly #claim: string;
  readonly #renewal: NodeJS.Timeout;
  #ticks: NodeJS.Timeout | undefined;
  #isLooking = false;
  #idleSince = 0;
  /** When the claim was seen last, by the clock of this machine, which goes on while the process is stopped. */
  #seen: number;

  constructor(claims: Claims, claim: string, seen: number, isUnwelcome: boolean) {
    this.#claims = claims;
    this.#claim = claim;
    this.#seen = seen;
    this.#isUnwelcome = isUnwelcome;
    this.#renewal = setInterval(() => void claims.renew(claim), RENEWAL); // one that is gone is found by confirm()
    this.#renewal.unref();
  }

  /** Whether it is to be given back after this work. */
  get isSpent(): boolean {
    return this.#isUnwelcome || performance.now() - this.#since > LONGEST;
  }

  async confirm(): Promise<void> {
    const now = Date.now();
    if (Math.abs(now - this.#seen) < SEEN) return;
    if (await this.#claims.isThere(this.#claim)) this.#seen = now;
    else {
      this.#isUnwelcome = true;
      throw taken();
    }
  }

  /** Stays held between changes; `leave` is called when that has to end. */
  linger(leave: () => void): void {
    this.#idleSince = performance.now();
    this.#ticks ??= setInterval(() => void this.#tick(leave), TICK).unref();
    lingering.add(this);
  }

  /** The last that a process does. */
  endNow(): void {
    if (!this.isBusy) this.#claims.removeNow(this.#claim);
  }

  async end(): Promise<void> {
    clearInterval(this.#renewal);
    clearInterval(this.#ticks);
    lingering.delete(this);
    await this.#claims.remove(this.#claim);
  }

  /** Looks in the middle of work too, so that others get in however much there is to do here. */
  async #tick(leave: () => void): Promise<void> {
    if (this.#isLooking) return;
    this.#isLooking = true;
    const now = Date.now();
    // A folder that cannot be looked at is no reason to keep others out.
    const { isWanted, isOwnThere } = await this.#claims
      .look({ claim: this.#claim })
      .catch(() => ({ isWanted: true, isOwnThere: false }));
    this.#isLooking = false;
    this.#seen = isOwnThere ? now : Number.NEGATIVE_INFINITY;
    this.#isUnwelcome ||= isWanted || !isOwnThere;
    const isOver = this.isSpent || performance.now() - this.#idleSince >= LINGER;
    if (!this.isBusy && isOver) leave();
  }
}

function taken(): PolyheadError {
  return new PolyheadError(
    "STORE_LOCKED",
    "Another process took this one for dead and changes the store now; nothing was changed here. Try again.",
    {},
  );
}

function locked({ pid, place }: Partial<ProcessName>, wait: number, claims: string): PolyheadError {
  return new PolyheadError(
    "STORE_LOCKED",
    `Process ${pid ?? "unknown"} on ${place ?? "an unknown machine"} has been changing the store for ${wait} ms. Try again; if it hangs, end it. Its claim is in ${claims}.`,
    { pid, place, wait },
  );
}
