/** Poolings in two and three dimensions. Padding never counts: it is no candidate for a maximum and no part of a mean. */
import type { Rule, Rules } from "../rule.js";
import { unsupported } from "../unsupported.js";
import type { Value } from "../value.js";
import { isChannelsFirstFormat, readKernelSize, readWindow, slide } from "../window.js";

function pooling(opType: string, attributes: Readonly<Record<string, number>>): Rule {
  return (call) => {
    const { builder } = call;
    const image = call.input(0);
    const rank = image.shape.length;
    const isFirst = isChannelsFirstFormat(call.attributes);
    const others = call.attributes
      .ints("ksize")
      ?.filter((_, axis) => axis === 0 || axis === (isFirst ? 1 : rank - 1));
    if (others?.some((size) => size !== 1)) throw unsupported("pooling over images or channels");

    const window = readWindow(call.attributes, readKernelSize(call.attributes, rank - 2));
    const { output, attributes: geometry } = slide(
      isFirst ? image.shape.slice(2) : image.shape.slice(1, -1),
      window,
    );
    const { dilations: _, ...undilated } = geometry;
    const gap = window.kernel.some((size, axis) => size < (window.strides[axis] ?? 1));
    if (gap && "auto_pad" in geometry)
      throw unsupported("pooling with gaps over axes of a size known at run time only");
    const stored = isFirst ? builder.plain(image) : builder.channelsFirst(image);
    const shape = isFirst
      ? [...image.shape.slice(0, 2), ...output]
      : [...image.shape.slice(0, 1), ...output, ...image.shape.slice(-1)];
    const pooled: Value = builder.op(
      opType,
      [builder.cast(stored, "float32")],
      { ...undilated, ...attributes },
      { dtype: "float32", shape, layout: isFirst ? "plain" : "channelsFirst" },
    );
    return opType === "MaxPool" ? builder.cast(pooled, image.dtype) : pooled;
  };
}

/** Rules for poolings. */
export const poolingRules: Rules = {
  MaxPool: pooling("MaxPool", {}),
  MaxPool3D: pooling("MaxPool", {}),
  AvgPool: pooling("AveragePool", { count_include_pad: 0 }),
  AvgPool3D: pooling("AveragePool", { count_include_pad: 0 }),
};
