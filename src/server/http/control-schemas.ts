/** What the control routes take and answer, as JSON Schemas. */
import { Type } from "typebox";

const Name = Type.String({ minLength: 1 });
const Reason = Type.Optional(Type.String({ description: "Stands in the history." }));

const CanaryLimits = Type.Object(
  {
    requests: Type.Integer({ minimum: 1, description: "Answers before the limits are judged." }),
    errorRate: Type.Optional(
      Type.Number({ minimum: 0, maximum: 1, description: "Most failed requests, as a share." }),
    ),
    latency: Type.Optional(
      Type.Number({ exclusiveMinimum: 0, description: "Milliseconds at the 99th percentile." }),
    ),
    agreement: Type.Optional(
      Type.Number({
        minimum: 0,
        maximum: 1,
        description:
          "Least agreement with the main revision: the share of rows with the same first class, or the mean cosine of embeddings.",
      }),
    ),
  },
  { additionalProperties: false, description: "Bounds beyond which the canary rolls back by itself." },
);

const Weighted = Type.Object(
  { revision: Name, weight: Type.Number({ exclusiveMinimum: 0, maximum: 1e9 }) },
  { additionalProperties: false },
);

/** Where a route shall point. */
export const Target = Type.Object(
  {
    revisions: Type.Array(Weighted, {
      minItems: 1,
      description: "Who answers, with shares; the first is the main revision, others are canaries.",
    }),
    shadows: Type.Optional(Type.Array(Name, { description: "Run and compared, never answering." })),
    limits: Type.Optional(CanaryLimits),
  },
  { additionalProperties: false, title: "Target" },
);

/** A switch of one or several routes. */
export const SwitchBody = Type.Object(
  {
    targets: Type.Record(Type.String(), Type.Union([Name, Target]), {
      minProperties: 1,
      description: "By route: a revision, or a target with canaries and shadows.",
    }),
    reason: Reason,
  },
  { additionalProperties: false, title: "Switch" },
);

/** The body of a promotion or rollback. */
export const ReasonBody = Type.Object({ reason: Reason }, { additionalProperties: false });

/** Fields of an upload. */
export const AddFields = Type.Object(
  {
    route: Type.Optional(
      Type.String({ description: "A new route, or the one that it becomes a revision of." }),
    ),
    title: Type.Optional(
      Type.String({ description: "Name of the file, by which a backbone without a route is known." }),
    ),
    reason: Reason,
  },
  { additionalProperties: false },
);

/** A model that the store has, for a route. */
export const AddKeptBody = Type.Object(
  {
    revision: Type.String({ minLength: 1, description: "Of a model that the store has." }),
    route: Type.String({ description: "A new route, or the one that it becomes a revision of." }),
    reason: Reason,
  },
  { additionalProperties: false, title: "AddKept" },
);

/** Fields of a history request. */
export const HistoryFields = Type.Object(
  {
    limit: Type.Optional(
      Type.Integer({ minimum: 1, maximum: 100_000, description: "Most changes, the newest first." }),
    ),
  },
  { additionalProperties: false },
);

/** From which generation on a change holds. */
export const GenerationAnswer = Type.Object({
  generation: Type.Integer({ description: "The first one of answers that see the change." }),
});

/** What an upload became. */
export const AddAnswer = Type.Object({ revision: Type.String(), route: Type.Optional(Type.String()) });

/** What was removed. */
export const RemoveAnswer = Type.Object({ removed: Type.String() });

const Comparison = Type.Object({
  revision: Type.String(),
  rows: Type.Integer(),
  agreement: Type.Optional(
    Type.Number({
      description: "Share of rows with the same first class; of embeddings the mean cosine.",
    }),
  ),
  meanDifference: Type.Optional(Type.Number()),
  maxDifference: Type.Optional(Type.Number()),
  cost: Type.Number({ description: "Milliseconds for a row, in the mean." }),
  failed: Type.Integer(),
});

/** A route with all that is known of it. */
export const RouteAnswer = Type.Object(
  {
    name: Type.String(),
    revisions: Type.Array(Type.Object({ revision: Type.String(), weight: Type.Number() })),
    shadows: Type.Array(Type.String()),
    limits: Type.Optional(CanaryLimits),
    task: Type.Optional(Type.String()),
    labels: Type.Optional(Type.Integer()),
    quality: Type.Optional(
      Type.Record(Type.String(), Type.Unknown(), {
        description: "How good the head is, as it was measured when it was made or adapted.",
      }),
    ),
    requests: Type.Integer(),
    failed: Type.Integer(),
    comparisons: Type.Array(Comparison),
  },
  { title: "Route" },
);

/** All routes. */
export const RoutesAnswer = Type.Object({ routes: Type.Array(RouteAnswer) });

/** Earlier changes, the newest first. */
export const HistoryAnswer = Type.Object({
  history: Type.Array(
    Type.Object({
      route: Type.Optional(Type.String()),
      at: Type.String(),
      by: Type.String(),
      action: Type.String(),
      generation: Type.Integer({
        description:
          "The store's, which outlasts the server; answers and switches count the running server's own generations.",
      }),
      before: Type.Optional(Target),
      after: Type.Optional(Target),
      reason: Type.String(),
    }),
  ),
});
