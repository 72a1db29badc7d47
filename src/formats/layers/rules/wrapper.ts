/** Layers around another layer. */
import { product, quotient } from "../../tfjs/dimension.js";
import { malformed } from "../../tfjs/json.js";
import { unsupported } from "../../tfjs/unsupported.js";
import { size } from "../../tfjs/value.js";
import type { LayerRule, LayerRules } from "../rule.js";

/** The same layer for each step of a sequence: steps are counted among the batch meanwhile. */
const timeDistributed: LayerRule = {
  apply: (call) => {
    const { builder } = call;
    const value = builder.plain(call.input());
    if (value.shape.length < 3)
      throw malformed(`A sequence has the rank ${value.shape.length}; expected at least 3.`);
    const [batch, steps] = [size(value, 0), size(value, 1)];
    const rows = product([batch, steps]);
    const [result, ...more] = call.applyInner([builder.reshape(value, [rows, ...value.shape.slice(2)])]);
    if (!result || more.length > 0) throw unsupported("a layer of several results for each step");
    const made = builder.plain(result);
    if (quotient([size(made, 0)], [steps]) !== batch) throw unsupported("a layer that changes the batch");
    return builder.reshape(made, [batch, steps, ...made.shape.slice(1)]);
  },
};

/** Rules for wrappers. */
export const wrapperRules: LayerRules = { TimeDistributed: timeDistributed };
