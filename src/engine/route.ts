/**
 * Routes: the public names that requests use, and the loaded models behind each. A route has one revision, or
 * several that share its requests (a canary), and it may have shadows, which run on the same features and never
 * answer.
 */
import { PolyheadError } from "../base/errors.js";
import type { Member } from "./member.js";

/** A revision and its share of a route's requests. */
export interface WeightedRevision {
  readonly revision: string;
  /** Positive; shares are in proportion. */
  readonly weight: number;
}

/** Where a route points. */
export interface RouteTarget {
  /** The first one is what the route is for; the others are canaries. */
  readonly revisions: readonly WeightedRevision[];
  /** Revisions that run with the answering one, to be compared. */
  readonly shadows?: readonly string[];
  /** Whether the main revision runs beside a canary that answers, to be compared with it; false by default. */
  readonly compared?: boolean;
}

/** A route in a generation; never changed. */
export class Route {
  readonly variants: readonly { readonly member: Member; readonly weight: number }[];
  readonly shadows: readonly Member[];
  readonly compared: boolean;

  /**
   * @param find gives the loaded model of a revision, or throws
   * @throws PolyheadError INVALID_ARGUMENT for no revision, a revision twice or a weight that is not positive
   */
  constructor(target: RouteTarget, find: (revision: string) => Member) {
    const { revisions, shadows = [], compared = false } = target;
    const all = [...revisions.map(({ revision }) => revision), ...shadows];
    const isPlain = revisions.length > 0 && new Set(all).size === all.length;
    if (!isPlain || !revisions.every(({ weight }) => weight > 0 && Number.isFinite(weight))) {
      throw new PolyheadError(
        "INVALID_ARGUMENT",
        "A route points to one or several different revisions of positive weight, and to shadows that are none of them.",
        { revisions, shadows },
      );
    }
    this.variants = revisions.map(({ revision, weight }) => ({ member: find(revision), weight }));
    this.shadows = shadows.map(find);
    this.compared = compared;
  }

  /** The revision that the route is for. */
  get main(): Member {
    const [first] = this.variants;
    if (!first) throw new PolyheadError("INTERNAL", "A route without a revision.", {});
    return first.member;
  }

  /** Where it points, in words of the API. */
  get target(): RouteTarget {
    return {
      revisions: this.variants.map(({ member, weight }) => ({ revision: member.revision, weight })),
      shadows: this.shadows.map(({ revision }) => revision),
      ...(this.compared && { compared: true }),
    };
  }

  /** All members that it runs. */
  get members(): readonly Member[] {
    return [...this.variants.map(({ member }) => member), ...this.shadows];
  }

  /** Whether a revision is among these. */
  uses(revision: string): boolean {
    return this.members.some((member) => member.revision === revision);
  }

  /**
   * The member that answers a request.
   * @param key requests of one key get the same one while weights stay as they are
   */
  pick(key: string | undefined): Member {
    const total = this.variants.reduce((sum, { weight }) => sum + weight, 0);
    let place = total * (key === undefined ? Math.random() : fraction(key));
    for (const { member, weight } of this.variants) {
      place -= weight;
      if (place < 0) return member;
    }
    return this.main;
  }
}

/** A number from 0 to below 1 that a text always gives: FNV-1a, mixed so that similar texts are far apart. */
function fraction(text: string): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return ((hash ^ (hash >>> 16)) >>> 0) / 2 ** 32;
}
