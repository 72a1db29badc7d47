/** Normalisations: by statistics that came with the model, by neighbouring channels, by the sum over the last axis. */
import { float } from "../../../onnx/model.js";
import { addAxes } from "../axes.js";
import type { Call, Rule, Rules } from "../rule.js";
import { unsupported } from "../unsupported.js";
import { storedAxis, type Value } from "../value.js";
import { isChannelsFirstFormat } from "../window.js";

/** (image, scale, offset, mean, variance), each of the last four with one number a channel. */
function batchNormalization(call: Call): readonly Value[] {
  const { builder, attributes } = call;
  const image = builder.cast(call.input(0), "float32");
  const isFirst = isChannelsFirstFormat(attributes);
  const statistics = [1, 2, 3, 4].map((index) => builder.cast(call.input(index), "float32"));
  if (statistics.some((each) => each.shape.length !== 1)) {
    throw unsupported("a batch normalisation by more than one number a channel");
  }
  if (attributes.bool("is_training") && statistics.slice(2).some((each) => each.shape[0] === 0)) {
    throw unsupported(
      "a batch normalisation by the statistics of the batch itself (export the model for inference)",
    );
  }
  const stored = isFirst ? builder.plain(image) : builder.channelsFirst(image);
  const epsilon = float(attributes.float("epsilon", 0.001));
  const result = builder.op("BatchNormalization", [stored, ...statistics], { epsilon }, stored);
  return [result, ...statistics.slice(2), ...statistics.slice(2), ...statistics.slice(3)];
}

/** x / (bias + alpha * sum of the squares of the channels around)^beta; ONNX takes alpha times their number. */
function localResponseNormalization(call: Call): Value {
  const { builder, attributes } = call;
  const image = builder.channelsFirst(builder.cast(call.input(0), "float32"));
  const size = 2 * attributes.int("depth_radius", 5) + 1;
  return builder.op(
    "LRN",
    [image],
    {
      size,
      alpha: float(attributes.float("alpha", 1) * size),
      beta: float(attributes.float("beta", 0.5)),
      bias: float(attributes.float("bias", 1)),
    },
    image,
  );
}

function overChannels(opType: string): Rule {
  return (call) => {
    const x = call.builder.cast(call.input(0), "float32");
    return call.builder.op(opType, [x], { axis: storedAxis(x, x.shape.length - 1) }, x);
  };
}

/** One bias a channel; in the format NCHW the channels are the second axis. */
function addBias(call: Call): Value {
  const { builder } = call;
  const x = call.input(0);
  const bias = builder.cast(call.input(1), x.dtype);
  if (!isChannelsFirstFormat(call.attributes)) return builder.elementwise("Add", [x, bias], x.dtype);
  const trailing = Array.from({ length: Math.max(x.shape.length - 2, 0) }, (_, axis) => axis + 1);
  return builder.elementwise("Add", [builder.plain(x), addAxes(builder, bias, trailing)], x.dtype);
}

/** Rules for normalisations and biases. */
export const normalizationRules: Rules = {
  FusedBatchNorm: batchNormalization,
  FusedBatchNormV2: batchNormalization,
  FusedBatchNormV3: batchNormalization,
  LRN: localResponseNormalization,
  Softmax: overChannels("Softmax"),
  LogSoftmax: overChannels("LogSoftmax"),
  BiasAdd: addBias,
};
