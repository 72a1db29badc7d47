/**
 * A generation: the loaded models, the routes to them and the sessions behind both, at one time. It never changes; a
 * request takes the current one when it comes and keeps it to its end. Publishing the next one is the engine's business.
 */
import { PolyheadError } from "../base/errors.js";
import type { Metadata } from "../onnx/metadata.js";
import type { Member, Signature } from "./member.js";
import type { Plan } from "./plan.js";
import type { Route } from "./route.js";

/** A loaded model as people see it. */
export interface LoadedModel {
  readonly revision: string;
  /** Routes that point to it, as their shadow too. */
  readonly routes: readonly string[];
  /** The revisions of the backbones and adapters that it reads. */
  readonly through: readonly string[];
  /** Names of the inputs that its requests give; of a head those of the backbones that it reads. */
  readonly inputs: readonly string[];
  /** What its requests give and get, as far as the file says it. */
  readonly signature: { readonly inputs: readonly Signature[]; readonly outputs: readonly Signature[] };
  readonly metadata: Metadata;
}

/** Who runs for a route in one request. */
export interface Choice {
  readonly member: Member;
  readonly shadows: readonly Member[];
  /** The main revision, to be compared with the canary that answers. */
  readonly reference?: Member;
}

/** What a request may say of who shall answer. */
export interface ChoiceOptions {
  /** Requests of one key get the same revision of a route that has several. */
  readonly key?: string;
  /** Revisions that shall answer, by route, where it is not to be decided by the route. */
  readonly revisions?: Readonly<Record<string, string>>;
}

/** One state of an engine. */
export class Generation {
  readonly number: number;
  readonly plan: Plan;
  /** Loaded models by revision. */
  readonly members: ReadonlyMap<string, Member>;
  readonly routes: ReadonlyMap<string, Route>;

  constructor(
    number: number,
    plan: Plan,
    members: ReadonlyMap<string, Member> = new Map(),
    routes: ReadonlyMap<string, Route> = new Map(),
  ) {
    this.number = number;
    this.plan = plan;
    this.members = members;
    this.routes = routes;
  }

  /** A loaded model. @throws PolyheadError NOT_FOUND */
  member(revision: string): Member {
    const found = this.members.get(revision);
    if (found) return found;
    throw new PolyheadError("NOT_FOUND", `The revision ${revision} is not loaded; load its model first.`, {
      revision,
    });
  }

  /** A route. @throws PolyheadError NOT_FOUND */
  route(name: string): Route {
    const found = this.routes.get(name);
    if (found) return found;
    const known = [...this.routes.keys()];
    throw new PolyheadError(
      "NOT_FOUND",
      `No route is called ${JSON.stringify(name)}; expected one of ${known.join(", ") || "none, as none was added"}.`,
      { route: name, expected: known },
    );
  }

  /** The name of a route that a revision answers or runs beside. */
  userOf(revision: string): string | undefined {
    return [...this.routes].find(([, route]) => route.uses(revision))?.[0];
  }

  /** All loaded models, live or not. */
  get models(): LoadedModel[] {
    const users = new Map<string, string[]>([...this.members.keys()].map((revision) => [revision, []]));
    for (const [name, route] of this.routes)
      for (const { revision } of route.members) users.get(revision)?.push(name);
    return [...this.members.values()].map((member) => ({
      revision: member.revision,
      metadata: member.metadata,
      through: member.providers.map(({ revision }) => revision),
      inputs: [...member.inputs.keys()],
      signature: member.signature,
      routes: users.get(member.revision) ?? [],
    }));
  }

  /** The member that answers for a route, and those that run beside it. @throws PolyheadError NOT_FOUND */
  choose(name: string, { key, revisions }: ChoiceOptions): Choice {
    const route = this.route(name);
    const asked = revisions && Object.hasOwn(revisions, name) ? revisions[name] : undefined;
    if (asked !== undefined) return { member: this.member(asked), shadows: [] };
    const member = route.pick(key === undefined ? undefined : `${name} ${key}`);
    const isCompared = route.compared && member !== route.main;
    return { member, shadows: route.shadows, ...(isCompared && { reference: route.main }) };
  }
}
