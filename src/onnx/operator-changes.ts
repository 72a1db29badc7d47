/**
 * What changed between versions of an operator, from set 7 on. Most new versions allow more dtypes, add an option or
 * state more clearly what held before: whatever was said in the old form means the same in the new. Those are listed
 * here, by hand, from the ONNX change log; a version that is in neither list nor in the rules of `upgrade-rules.ts`
 * is another operator. Operators of other parties are not looked at.
 */
import { OPERATOR_SCHEMAS } from "./generated/operator-schemas.js";
import { canonicalDomain, DEFAULT_OPSET } from "./model.js";
import { schemaVersion } from "./operator-schema.js";

/** By version of the operator set: operators that mean in it what they meant before. */
const SAME: Readonly<Record<number, string>> = {
  8: "Max MaxPool Mean Min Sum",
  9: "BatchNormalization Cast Constant Flatten Gemm Greater Less MatMul PRelu",
  10: "AveragePool MaxPool",
  11: `ArgMax ArgMin AveragePool Compress Concat Constant Conv ConvTranspose DepthToSpace Equal Flatten Gather Gemm
    Hardmax If LogSoftmax Loop LpPool MaxPool MaxUnpool NonMaxSuppression OneHot ReduceL1 ReduceL2 ReduceLogSum
    ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Scan Slice Softmax Split
    Squeeze TopK Unsqueeze`,
  12: "ArgMax ArgMin Clip Constant GatherND Max MaxPool Min Pow ReduceMax ReduceMin",
  13: `Abs Add ArgMax ArgMin Cast Ceil Clip Concat Constant DepthToSpace DequantizeLinear Div Dropout Equal Erf Exp
    Expand Flatten Floor Gather GatherElements GatherND Gemm Greater Identity If IsNaN LRN Less Log Loop MatMul Max
    Mean MeanVarianceNormalization Min Mod Mul Neg NonZero Pad Pow QuantizeLinear Reciprocal ReduceL1 ReduceL2
    ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSumSquare Relu Reshape Resize
    ScatterElements ScatterND Shape Sigmoid Sign Size Slice SpaceToDepth Sqrt Sub Sum Tanh Tile Transpose`,
  14: "Add BatchNormalization CumSum Div GRU Identity LSTM Mul RNN Relu Reshape Sub",
  15: "BatchNormalization Pow Shape",
  16: "GreaterOrEqual Identity If LeakyRelu LessOrEqual Loop PRelu ScatterElements ScatterND Scan Where",
  18: "Pad ScatterElements ScatterND",
  19: `Cast Constant DequantizeLinear Equal Identity If Loop Pad QuantizeLinear Reshape Scan Shape Size`,
  20: "ConstantOfShape IsInf IsNaN ReduceMax ReduceMin",
  21: `Cast Constant ConstantOfShape DequantizeLinear Flatten Identity If Loop Pad QLinearMatMul QuantizeLinear
    Reshape Scan Shape Size Squeeze Transpose Unsqueeze`,
  22: `Acos Acosh Asin Asinh Atan Atanh AveragePool Conv ConvTranspose Cos Cosh Det Dropout Elu EyeLike GRU GlobalAveragePool
    GlobalLpPool GlobalMaxPool GridSample HardSigmoid HardSwish InstanceNormalization LSTM LpNormalization LpPool
    MaxPool MaxRoiPool MaxUnpool Mish RNN RoiAlign Selu Sin Sinh Softplus Softsign Tan ThresholdedRelu`,
  23: `Cast Constant ConstantOfShape DequantizeLinear Flatten Identity If Loop Pad QuantizeLinear Reshape Scan Shape
    Size Squeeze Transpose Unsqueeze`,
  24: `Cast Constant ConstantOfShape DequantizeLinear Flatten Identity If Loop Pad QuantizeLinear Reshape Scan Shape
    Size Squeeze TopK Transpose Unsqueeze`,
  25: `Cast Constant ConstantOfShape DequantizeLinear Flatten Identity If Loop Pad QuantizeLinear Reshape Scan Shape
    Size Squeeze Transpose Unsqueeze`,
};

const SAME_SINCE = new Map(
  Object.entries(SAME).map(([since, operators]) => [Number(since), new Set(operators.trim().split(/\s+/))]),
);

/** Whether an operator means in this version of its own what it meant in the version before. */
export function isSameSince(opType: string, since: number): boolean {
  return SAME_SINCE.get(since)?.has(opType) ?? false;
}

/**
 * The versions in which an operator of the standard changed in any way, after `opset` and up to `target`, oldest
 * first; none for an operator that is not known at `opset`.
 */
export function changesBetween(opType: string, opset: number, target: number): readonly number[] {
  const versions = versionsOf(opType);
  if (!versions.some((since) => since <= opset)) return [];
  return versions.filter((since) => since > opset && since <= target);
}

/**
 * One version for all versions of an operator that mean the same: a Relu of set 9, 17 or 22 is the one of set 14.
 * It is the newest of them up to the set that Polyhead writes, else the oldest. Where nothing is known, see
 * `schemaVersion`.
 */
export function meaningVersion(domain: string, opType: string, opset: number): number {
  const own = schemaVersion(domain, opType, opset);
  const versions = canonicalDomain(domain) === "" ? versionsOf(opType) : [];
  const at = versions.indexOf(own);
  if (at < 0) return own;
  let [first, last] = [at, at];
  while (first > 0 && isSameSince(opType, versions[first] ?? 0)) first--;
  while (last + 1 < versions.length && isSameSince(opType, versions[last + 1] ?? 0)) last++;
  const same = versions.slice(first, last + 1);
  return same.findLast((since) => since <= DEFAULT_OPSET) ?? same[0] ?? own;
}

function versionsOf(opType: string): number[] {
  const operators = OPERATOR_SCHEMAS[""] ?? {};
  return Object.hasOwn(operators, opType) ? (operators[opType] ?? []).map(([since]) => since) : [];
}
