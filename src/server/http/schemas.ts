/**
 * What the REST protocol takes and answers, as JSON Schemas: requests are checked against these, and the OpenAPI
 * document shows them. Tensor data is checked by hand, not here.
 */
import { Type } from "typebox";

/** Parameters by name; unknown ones are ignored. */
const Parameters = Type.Record(Type.String(), Type.Unknown(), {
  description: "Texts, numbers and bools by name; unknown ones are ignored.",
});
const Duration = Type.Object({ count: Type.Integer(), ns: Type.Integer() });
const Counted = Type.Integer({ minimum: 0 });

/** What went wrong. */
export const ErrorAnswer = Type.Object(
  {
    error: Type.String(),
    code: Type.Optional(Type.String()),
    plan: Type.Optional(
      Type.Record(Type.String(), Type.Unknown(), {
        description: "Of a head that fits no backbone here: the way to one, the reasons and the command.",
      }),
    ),
  },
  { title: "Error", description: "What went wrong: what came, what was expected and how to mend it." },
);

/** Server metadata. */
export const ServerMetadata = Type.Object({
  name: Type.String(),
  version: Type.String(),
  extensions: Type.Array(Type.String()),
});

/** Whether the process works. */
export const Live = Type.Object({ live: Type.Boolean() });

/** Whether requests are welcome. */
export const Ready = Type.Object({ live: Type.Boolean(), ready: Type.Boolean() });

/** Whether a model answers. */
export const ModelReady = Type.Object({ name: Type.String(), ready: Type.Boolean() });

const TensorMetadata = Type.Object({
  name: Type.String(),
  datatype: Type.String(),
  shape: Type.Array(Type.Integer({ minimum: -1 })),
});

/** Model metadata; open dimensions are -1. */
export const ModelMetadata = Type.Object({
  name: Type.String(),
  versions: Type.Array(Type.String()),
  platform: Type.String(),
  inputs: Type.Array(TensorMetadata),
  outputs: Type.Array(TensorMetadata),
});

const TensorConfig = Type.Object({
  name: Type.String(),
  data_type: Type.String(),
  dims: Type.Array(Type.Integer({ minimum: -1 })),
});

/** A model as Triton's clients want it configured. */
export const ModelConfigAnswer = Type.Object({
  name: Type.String(),
  platform: Type.String(),
  backend: Type.String(),
  max_batch_size: Type.Integer({ minimum: 0, description: "0 for a model that takes no batches." }),
  input: Type.Array(TensorConfig),
  output: Type.Array(TensorConfig),
});

/** An inference request. Its model name is the path's. */
export const InferenceBody = Type.Object(
  {
    id: Type.Optional(Type.String()),
    parameters: Type.Optional(Parameters),
    inputs: Type.Array(
      Type.Object({
        name: Type.String(),
        shape: Type.Array(Type.Number()),
        datatype: Type.String(),
        parameters: Type.Optional(Parameters),
        data: Type.Optional(Type.Unknown({ description: "Elements in row-major order, flat or nested." })),
      }),
      { minItems: 1 },
    ),
    outputs: Type.Optional(
      Type.Array(Type.Object({ name: Type.String(), parameters: Type.Optional(Parameters) })),
    ),
  },
  { title: "InferenceRequest" },
);

/** An inference response. */
export const InferenceAnswer = Type.Object(
  {
    model_name: Type.String(),
    model_version: Type.String(),
    id: Type.Optional(Type.String()),
    parameters: Parameters,
    outputs: Type.Array(
      Type.Object({
        name: Type.String(),
        shape: Type.Array(Type.Integer()),
        datatype: Type.String(),
        parameters: Type.Optional(Parameters),
        data: Type.Optional(Type.Array(Type.Unknown())),
      }),
    ),
  },
  { title: "InferenceResponse" },
);

/** Fields of an image request, of its query or its form. */
export const ImageFields = Type.Object(
  {
    routes: Type.Optional(Type.String({ description: "Further routes, separated by commas." })),
    threshold: Type.Optional(Type.Number({ minimum: 0, maximum: 1, description: "Least score." })),
    top: Type.Optional(Type.Integer({ minimum: 1, maximum: 100_000, description: "Most classes." })),
    key: Type.Optional(Type.String({ description: "Callers of one key get one revision of a canary." })),
    timeout: Type.Optional(Type.Integer({ minimum: 0, description: "Microseconds." })),
    cache: Type.Optional(Type.Boolean({ description: "Whether features may come from the cache." })),
    id: Type.Optional(Type.String()),
  },
  { additionalProperties: false },
);

const ImageOutput = Type.Object({
  name: Type.String(),
  datatype: Type.String(),
  shape: Type.Array(Type.Integer()),
  data: Type.Array(Type.Unknown()),
});
const ImageRoute = Type.Object({
  revision: Type.String(),
  classes: Type.Optional(
    Type.Array(Type.Object({ label: Type.String(), index: Type.Integer(), score: Type.Number() })),
  ),
  detections: Type.Optional(
    Type.Array(
      Type.Object({
        label: Type.String(),
        index: Type.Integer(),
        score: Type.Number(),
        box: Type.Object(
          { x1: Type.Number(), y1: Type.Number(), x2: Type.Number(), y2: Type.Number() },
          { description: "In pixels of the image." },
        ),
      }),
    ),
  ),
  outputs: Type.Optional(Type.Array(ImageOutput)),
});

/** What an image is answered, by route. */
export const ImageAnswer = Type.Object(
  {
    model_name: Type.String(),
    model_version: Type.String(),
    id: Type.Optional(Type.String()),
    generation: Type.Integer(),
    cached: Type.Boolean(),
    image: Type.Object({ width: Type.Integer(), height: Type.Integer() }),
    routes: Type.Record(Type.String(), ImageRoute),
  },
  { title: "ImageResponse" },
);

/** The body of a repository index request. */
export const IndexBody = Type.Object({
  ready: Type.Optional(Type.Boolean({ description: "Only models that answer; false when left out." })),
});

/** The repository index. */
export const IndexAnswer = Type.Array(
  Type.Object({
    name: Type.String(),
    version: Type.String(),
    state: Type.String(),
    reason: Type.String(),
  }),
);

/** The body of a load or unload request. */
export const RepositoryBody = Type.Object({
  parameters: Type.Optional(
    Type.Record(Type.String(), Type.Unknown(), {
      description: "`file:NAME.onnx` holds a model in base64, to be loaded instead of the store's.",
    }),
  ),
});

/** Statistics by model and revision. */
export const StatisticsAnswer = Type.Object({
  model_stats: Type.Array(
    Type.Object({
      name: Type.String(),
      version: Type.String(),
      last_inference: Counted,
      inference_count: Counted,
      execution_count: Counted,
      inference_stats: Type.Object({
        success: Duration,
        fail: Duration,
        queue: Duration,
        compute_input: Duration,
        compute_infer: Duration,
        compute_output: Duration,
        cache_hit: Duration,
        cache_miss: Duration,
      }),
      batch_stats: Type.Array(
        Type.Object({
          batch_size: Counted,
          compute_input: Duration,
          compute_infer: Duration,
          compute_output: Duration,
        }),
      ),
    }),
  ),
});
