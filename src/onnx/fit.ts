/**
 * Binding a head of unknown origin to a backbone. Nothing in such a head says which features it was trained on; that
 * its input has the type of a tap is checked here, that it fits is the word of whoever asks for it.
 */
import { PolyheadError } from "../base/errors.js";
import { formatShape } from "../tensor/shape.js";
import { requireValue } from "./extract.js";
import { GraphIndex } from "./graph.js";
import { identify } from "./identity.js";
import { inlined } from "./inline.js";
import { readMetadata, type Tap, withMetadata } from "./metadata.js";
import { declaredType, type Model, type ValueType } from "./model.js";
import { inferTypes } from "./shapes.js";

/**
 * What heads may read of a model: the named value, or else all of its outputs.
 * @throws PolyheadError NOT_FOUND for a name that is no value of the model; MODEL_UNSUPPORTED when its type is not known
 */
export async function tapsOf(backbone: Model, name?: string): Promise<Tap[]> {
  const model = inlined(backbone);
  const index = new GraphIndex(model.graph);
  if (name !== undefined) requireValue(index, name);
  const types = inferTypes(model);
  const identities = await identify(model);
  const listed = new Map((readMetadata(model).taps ?? []).map((tap) => [tap.name, tap]));
  return (name === undefined ? index.outputNames : [name]).map((each) => {
    const { dtype, shape = listed.get(each)?.shape } = types.get(each) ?? {};
    const identity = identities.get(each);
    if (dtype && shape && identity !== undefined) return { name: each, dtype, shape, identity };
    throw new PolyheadError(
      "MODEL_UNSUPPORTED",
      `The type of ${JSON.stringify(each)} is not known, so that no head can be held to it.`,
      { value: each },
    );
  });
}

/**
 * The head with the tap that it reads in its metadata. Its one input must have the tap's dtype and sizes; open ones
 * take any.
 * @param taps those that it may read; exactly one must fit
 * @throws PolyheadError HEAD_MISMATCH when none fits; INVALID_ARGUMENT when several do, or the head has several inputs
 */
export function bindHead(head: Model, taps: readonly Tap[]): { readonly model: Model; readonly tap: Tap } {
  const { inputs } = new GraphIndex(head.graph);
  const [input, ...others] = inputs;
  const type = input && declaredType(input);
  if (!input || !type || others.length > 0) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      `Only a head of one input can be bound to a tap by name; this one has ${inputs.map(({ name }) => name).join(", ") || "none"}.`,
      { inputs: inputs.map(({ name }) => name) },
    );
  }
  const fitting = taps.filter((tap) => fits(type, tap));
  const [tap] = fitting;
  if (tap && fitting.length === 1) return { tap, model: withMetadata(head, { role: "head", taps: [tap] }) };
  const expected = typeText(type);
  const offers = taps.map((each) => `${JSON.stringify(each.name)} ${typeText(each)}`);
  throw tap
    ? new PolyheadError(
        "INVALID_ARGUMENT",
        `The head takes ${expected}, and several taps are like that: ${offers.join(", ")}. Name the one that it was trained on.`,
        { expected, offers: fitting },
      )
    : new PolyheadError(
        "HEAD_MISMATCH",
        `The head takes ${expected}; the backbone offers ${offers.slice(0, 8).join(", ") || "nothing"}. Name another value of it, or fit an adapter between them.`,
        { expected, offers: taps },
      );
}

/** Whether a head's input takes a tap; rows are not compared. */
function fits({ dtype, shape }: ValueType, tap: Tap): boolean {
  if (dtype !== tap.dtype) return false;
  if (!shape) return true;
  return (
    shape.length === tap.shape.length &&
    shape.every((size, axis) => axis === 0 || typeof size === "string" || size === tap.shape[axis])
  );
}

function typeText({ dtype, shape }: Pick<ValueType, "dtype" | "shape">): string {
  return `${dtype} ${formatShape(shape ?? [])}`;
}
