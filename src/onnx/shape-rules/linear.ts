/** Matrix products and recurrent layers. */
import type { DType } from "../../tensor/dtype.js";
import type { Dimension, SymbolicShape } from "../../tensor/shape.js";
import { broadcast } from "./broadcasting.js";
import { product, quotient } from "./sizes.js";
import type { NodeView, Rule } from "./view.js";

/** NumPy's `matmul` of shapes; undefined when they do not fit. */
function matmulShape(view: NodeView, a: SymbolicShape, b: SymbolicShape): SymbolicShape | undefined {
  if (a.length === 0 || b.length === 0) return undefined;
  const left = a.length === 1 ? [1, ...a] : a;
  const right = b.length === 1 ? [...b, 1] : b;
  const inner = [left.at(-1), right.at(-2)];
  if (inner.every((size) => typeof size === "number") && inner[0] !== inner[1]) return undefined;
  const stack = broadcast(view, [left.slice(0, -2), right.slice(0, -2)]);
  const rows = a.length === 1 ? [] : left.slice(-2, -1);
  const columns = b.length === 1 ? [] : right.slice(-1);
  return stack && [...stack, ...rows, ...columns];
}

const matmul =
  (second: number, dtype: (view: NodeView) => DType | undefined): Rule =>
  (view) => {
    const a = view.shape();
    const b = view.shape(second);
    return [{ dtype: dtype(view), shape: a && b && matmulShape(view, a, b) }];
  };

const fusedMatmul: Rule = (view) => {
  const turned = (place: number, attribute: string) => {
    const shape = view.shape(place);
    const isTurned = view.int(attribute, 0) !== 0 && shape && shape.length > 1;
    return isTurned ? [...shape.slice(0, -2), ...shape.slice(-1), ...shape.slice(-2, -1)] : shape;
  };
  const a = turned(0, "transA");
  const b = turned(1, "transB");
  const isPlain = view.int("transBatchA", 0) === 0 && view.int("transBatchB", 0) === 0;
  return [{ dtype: view.dtype(), shape: isPlain && a && b ? matmulShape(view, a, b) : undefined }];
};

const gemm: Rule = (view) => {
  const rows = view.shape()?.[view.int("transA", 0) !== 0 ? 1 : 0];
  const columns = view.shape(1)?.[view.int("transB", 0) !== 0 ? 0 : 1];
  const isKnown = rows !== undefined && columns !== undefined;
  return [{ dtype: view.dtype(), shape: isKnown ? [rows, columns] : undefined }];
};

const einsum: Rule = (view) => {
  const shapes = view.shapes();
  return [{ dtype: view.dtype(), shape: shapes && einsumShape(view, view.text("equation", ""), shapes) }];
};

/** The sizes that the labels of an Einsum stand for; undefined when the equation does not fit the shapes. */
export function einsumLabels(
  equation: string,
  shapes: readonly SymbolicShape[],
): { readonly sizes: ReadonlyMap<string, Dimension>; readonly output: readonly string[] } | undefined {
  const [inputs = "", explicit] = equation.replaceAll(" ", "").split("->");
  const terms = inputs.split(",");
  if (terms.length !== shapes.length) return undefined;
  const sizes = new Map<string, Dimension>();
  const uses = new Map<string, number>();
  let hidden = 0;
  for (const [place, term] of terms.entries()) {
    const shape = shapes[place] ?? [];
    const named = term.replace("...", "");
    const more = shape.length - named.length;
    if (more < 0 || (more > 0 && !term.includes("..."))) return undefined;
    hidden = Math.max(hidden, more);
    labelsOf(term, more).forEach((label, axis) => {
      const size = shape[axis] ?? 1;
      const known = sizes.get(label);
      if (known === undefined || known === 1 || (typeof known === "string" && typeof size === "number"))
        sizes.set(label, size);
      uses.set(label, (uses.get(label) ?? 0) + 1);
    });
  }
  const implicit = [...uses]
    .filter(([label, count]) => count === 1 && label.length === 1)
    .map(([label]) => label)
    .sort();
  const output =
    explicit === undefined ? [...labelsOf("...", hidden), ...implicit] : labelsOf(explicit, hidden);
  return output.every((label) => sizes.has(label)) ? { sizes, output } : undefined;
}

/** Labels of a term's axes; the axes of an ellipsis are counted from the back: `...1` is the last of them. */
function labelsOf(term: string, hidden: number): string[] {
  const [before = "", after] = term.split("...");
  if (after === undefined) return [...before];
  return [...before, ...Array.from({ length: hidden }, (_, at) => `...${hidden - at}`), ...after];
}

function einsumShape(
  view: NodeView,
  equation: string,
  shapes: readonly SymbolicShape[],
): SymbolicShape | undefined {
  const labels = einsumLabels(equation, shapes);
  return labels?.output.map((label) => labels.sizes.get(label) ?? view.unknown());
}

const determinant: Rule = (view) => [{ dtype: view.dtype(), shape: view.shape()?.slice(0, -2) }];

const GATES = { RNN: 1, GRU: 3, LSTM: 4 };

const recurrent =
  (gates: number): Rule =>
  (view) => {
    const dtype = view.dtype();
    const [first, second] = view.shape() ?? [];
    const directions = view.shape(1)?.[0];
    const rows = view.shape(1)?.[1];
    const hidden = view.int("hidden_size", 0) || (rows === undefined ? undefined : quotient(rows, gates));
    if (first === undefined || second === undefined || directions === undefined || hidden === undefined)
      return [{ dtype }, { dtype }, { dtype }];
    const isBatchFirst = view.int("layout", 0) === 1;
    const state = isBatchFirst ? [first, directions, hidden] : [directions, second, hidden];
    const sequence = isBatchFirst ? [first, second, directions, hidden] : [first, directions, second, hidden];
    return [
      { dtype, shape: sequence },
      { dtype, shape: state },
      { dtype, shape: state },
    ];
  };

/** Scaled dot products; the width of the result is that of the values, once per head of the queries. */
const attention: Rule = (view) => {
  const dtype = view.dtype();
  const query = view.shape();
  const value = view.shape(2);
  const width = value?.at(-1);
  if (!query || width === undefined) return [{ dtype }];
  if (query.length === 4) return [{ dtype, shape: [...query.slice(0, 3), width] }];
  const heads = view.int("q_num_heads", 1);
  const perHead = quotient(width, view.int("kv_num_heads", 1));
  const total = perHead === undefined ? undefined : product([perHead, heads]);
  return [{ dtype, shape: [...query.slice(0, 2), total ?? view.unknown()] }];
};

/** Rules of this file by operator. */
export const LINEAR: Readonly<Record<string, Rule>> = {
  MatMul: matmul(1, (view) => view.dtype()),
  MatMulInteger: matmul(1, () => "int32"),
  QLinearMatMul: matmul(3, (view) => view.dtype(7)),
  FusedMatMul: fusedMatmul,
  Gemm: gemm,
  FusedGemm: gemm,
  Einsum: einsum,
  Det: determinant,
  RNN: recurrent(GATES.RNN),
  GRU: recurrent(GATES.GRU),
  LSTM: recurrent(GATES.LSTM),
  Attention: attention,
};
