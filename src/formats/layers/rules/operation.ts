/**
 * Operations that a model calls between its layers, such as `x / 127.5 - 1` or `preprocess_input(x)`: Keras 2 writes them as
 * TFOpLambda with a function's name, Keras 3 under the name of its own operation. Only functions of this table are known, by
 * name; nothing is looked up and nothing is run. What a call is given beside tensors are numbers and lists of numbers.
 */
import { elementCount } from "../../../tensor/shape.js";
import { float32 } from "../../../tensor/tensor.js";
import { isRecord, malformed } from "../../tfjs/json.js";
import { activate } from "../../tfjs/rules/activation.js";
import { axisRange, slice } from "../../tfjs/slicing.js";
import { unsupported } from "../../tfjs/unsupported.js";
import { axisIndex, storedAxis, type Value } from "../../tfjs/value.js";
import type { LayerCall, LayerRule } from "../rule.js";
import type { LayerSpec } from "../topology.js";
import { unitLength } from "./normalization.js";

/** A number or a nested list of numbers as a constant. */
function constant(call: LayerCall, given: unknown): Value {
  const numbers: number[] = [];
  const shape: number[] = [];
  const fill = (item: unknown, depth: number): void => {
    if (typeof item === "number") {
      numbers.push(item);
      return;
    }
    if (!Array.isArray(item) || depth >= 8)
      throw unsupported(`an argument that is no number: ${JSON.stringify(item)?.slice(0, 60)}`);
    shape[depth] ??= item.length;
    for (const each of item) fill(each, depth + 1);
  };
  fill(given, 0);
  if (numbers.length !== elementCount(shape))
    throw malformed(`Layer ${JSON.stringify(call.layer.name)} is given rows of different lengths.`);
  return call.builder.constant(float32(shape, numbers));
}

/** What is given by place and then by name: tensors, and numbers as constants. */
function operands(call: LayerCall, names: readonly string[]): Value[] {
  const count = call.inputs.length + call.constants.size;
  let next = 0;
  const placed = Array.from({ length: count }, (_, place) =>
    call.constants.has(place) ? constant(call, call.constants.get(place)) : call.real(next++),
  );
  const byName = names.slice(count).map((name) => {
    const value = call.named[name];
    return value ? call.builder.cast(value, "float32") : constant(call, call.options[name]);
  });
  return [...placed, ...byName];
}

function arithmetic(opType: string): LayerRule {
  return {
    apply: (call) => {
      const isNew = call.dialect === "keras3" && call.layer.className !== "TFOpLambda";
      const [left, right, ...more] = operands(call, isNew ? ["x1", "x2"] : ["x", "y"]);
      if (!left || !right || more.length > 0)
        throw malformed(`Layer ${JSON.stringify(call.layer.name)} needs two values.`);
      return call.builder.elementwise(opType, [left, right], "float32");
    },
  };
}

const biasAdd: LayerRule = {
  apply: (call) => {
    if (call.options.data_format === "NCHW" || call.options.data_format === "channels_first")
      throw unsupported("a bias over channels that stand first");
    const [value, bias] = operands(call, ["value", "bias"]);
    if (!value || !bias)
      throw malformed(`Layer ${JSON.stringify(call.layer.name)} needs a value and a bias.`);
    return call.builder.elementwise("Add", [value, bias], "float32");
  },
};

function activation(kind: string): LayerRule {
  return { apply: (call) => activate(call.builder, kind, call.real()) };
}

const softmax: LayerRule = {
  apply: (call) => {
    const axis = call.options.axis ?? -1;
    if (typeof axis !== "number") throw unsupported("a softmax over several axes");
    const x = call.real();
    return call.builder.op("Softmax", [x], { axis: storedAxis(x, axisIndex(axis, x.shape.length)) }, x);
  },
};

const swish: LayerRule = {
  apply: (call) => {
    const x = call.real();
    return call.builder.elementwise("Mul", [x, call.builder.unary("Sigmoid", x)], "float32");
  },
};

const unit: LayerRule = {
  apply: (call) => {
    const { axis = -1, epsilon = 1e-12 } = call.options;
    if (typeof axis !== "number" || typeof epsilon !== "number")
      throw unsupported("a length over several axes");
    const x = call.builder.plain(call.real());
    return unitLength(call, x, [axisIndex(axis, x.shape.length)], epsilon);
  },
};

/** Numbers are float32 here, so that only a cast to real numbers changes nothing. */
const cast: LayerRule = {
  apply: (call) => {
    const dtype = call.options.dtype ?? call.options.x_dtype ?? "float32";
    if (!["float32", "float16", "float64", "bfloat16"].includes(String(dtype)))
      throw unsupported(`a cast to ${String(dtype)}`);
    return call.real();
  },
};

/** Channels in reverse, as models with the weights of Caffe want them; other parts of values are not covered. */
const reversedChannels: LayerRule = {
  apply: (call) => {
    const value = call.real();
    const spec = call.options.slice_spec;
    const items: readonly unknown[] = Array.isArray(spec) ? spec : [];
    const [last, ...before] = items.toReversed();
    const isWhole = (item: unknown) =>
      isRecord(item) && (item.class_name === "__ellipsis__" || (isPart(item) && (item.step ?? 1) === 1));
    const isPart = (item: Readonly<Record<string, unknown>>) =>
      item.class_name === undefined && (item.start ?? null) === null && (item.stop ?? null) === null;
    const reachesEnd =
      items.length === value.shape.length ||
      before.some((item) => isRecord(item) && item.class_name === "__ellipsis__");
    if (!isRecord(last) || !isPart(last) || last.step !== -1 || !before.every(isWhole) || !reachesEnd)
      throw unsupported("a part of a value (all but [..., ::-1])");
    return slice(call.builder, value, [axisRange(value, value.shape.length - 1, undefined, undefined, -1)]);
  },
};

/** Functions of TensorFlow, as TFOpLambda and SlicingOpLambda name them. */
const FUNCTIONS: Readonly<Record<string, LayerRule>> = {
  "__operators__.add": arithmetic("Add"),
  "__operators__.getitem": reversedChannels,
  "math.add": arithmetic("Add"),
  "math.subtract": arithmetic("Sub"),
  "math.multiply": arithmetic("Mul"),
  "math.truediv": arithmetic("Div"),
  "math.divide": arithmetic("Div"),
  "math.maximum": arithmetic("Max"),
  "math.minimum": arithmetic("Min"),
  "math.l2_normalize": unit,
  "linalg.l2_normalize": unit,
  "nn.l2_normalize": unit,
  "math.sigmoid": activation("sigmoid"),
  "math.tanh": activation("tanh"),
  "nn.bias_add": biasAdd,
  "nn.relu": activation("relu"),
  "nn.relu6": activation("relu6"),
  "nn.sigmoid": activation("sigmoid"),
  "nn.tanh": activation("tanh"),
  "nn.silu": swish,
  "nn.swish": swish,
  "nn.softmax": softmax,
  cast,
};

/** Operations of Keras 3. */
const OPERATIONS: Readonly<Record<string, LayerRule>> = {
  Add: arithmetic("Add"),
  Subtract: arithmetic("Sub"),
  Multiply: arithmetic("Mul"),
  TrueDivide: arithmetic("Div"),
  Divide: arithmetic("Div"),
  Maximum: arithmetic("Max"),
  Minimum: arithmetic("Min"),
  Relu: activation("relu"),
  Relu6: activation("relu6"),
  Sigmoid: activation("sigmoid"),
  Tanh: activation("tanh"),
  Silu: swish,
};

/** Whether a layer is an operation, and no layer of its own. */
export function isOperation({ className, module }: LayerSpec): boolean {
  return isLambda(className) || module?.includes(".ops") === true;
}

/** What an operation is called: its function's name, or that of its class. */
export function operationName({ className, config }: LayerSpec): string {
  const { function: name } = config.raw;
  return isLambda(className) && typeof name === "string" ? name : className;
}

/** The rule for an operation; undefined when there is none. */
export function findOperation(layer: LayerSpec): LayerRule | undefined {
  const table = isLambda(layer.className) ? FUNCTIONS : OPERATIONS;
  const name = operationName(layer);
  return Object.hasOwn(table, name) ? table[name] : undefined;
}

function isLambda(className: string): boolean {
  return className === "TFOpLambda" || className === "SlicingOpLambda";
}
