/** Operators that carry graphs: the result of a branch or a loop is what all its ways agree on. */
import { findAttribute } from "../model.js";
import type { Known, NodeView, Rule } from "./view.js";

/** What holds whichever of the two values it is. */
function agreed(view: NodeView, a: Known | undefined, b: Known | undefined): Known | undefined {
  if (!a || !b) return undefined;
  const { shape } = a;
  return {
    dtype: a.dtype === b.dtype ? a.dtype : undefined,
    shape:
      shape && shape.length === b.shape?.length
        ? shape.map((size, axis) => (size === b.shape?.[axis] ? size : view.unknown()))
        : undefined,
  };
}

const branch: Rule = (view) => {
  const yes = findAttribute(view.node, "then_branch")?.g;
  const no = findAttribute(view.node, "else_branch")?.g;
  if (!yes || !no) return [];
  const otherwise = view.scope.outputsOf(no, []);
  return view.scope.outputsOf(yes, []).map((known, place) => agreed(view, known, otherwise[place]));
};

const loop: Rule = (view) => {
  const body = findAttribute(view.node, "body")?.g;
  if (!body) return [];
  // What a loop carries may change its shape from turn to turn, not its dtype.
  const carried = view.node.input.slice(2).map((_, at): Known => ({ dtype: view.dtype(at + 2) }));
  const turn: Known[] = [{ dtype: "int64", shape: [] }, { dtype: "bool", shape: [] }, ...carried];
  const results = view.scope.outputsOf(body, turn).slice(1);
  return results.map((known, place) => {
    if (place < carried.length)
      return agreed(view, { dtype: view.dtype(place + 2), shape: view.shape(place + 2) }, known);
    return known && { dtype: known.dtype, shape: known.shape && [view.unknown(), ...known.shape] };
  });
};

/** Rules of this file by operator. */
export const CONTROL: Readonly<Record<string, Rule>> = { If: branch, Loop: loop };
