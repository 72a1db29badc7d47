/** What a request gives: inputs by name, bound to identities and checked; and their digest. */
import { PolyheadError } from "../base/errors.js";
import { sha256Aside } from "../base/sha256.js";
import type { Identity } from "../onnx/identity.js";
import { declaredType } from "../onnx/model.js";
import { formatShape } from "../tensor/shape.js";
import { bytesOf, type Tensor } from "../tensor/tensor.js";
import type { Member, ModelInput } from "./member.js";

/** One tensor for models with one input, or tensors by the names that the models give their inputs. */
export type Inputs = Tensor | Readonly<Record<string, Tensor>>;

/**
 * The given tensors by identity.
 * @throws PolyheadError INPUT_MISMATCH when one is missing, not known, or of another dtype or shape
 */
export function bindRequest(members: readonly Member[], inputs: Inputs): Map<Identity, Tensor> {
  const wanted = members.flatMap((member) =>
    [...member.inputs].map(([name, input]) => ({ name, input, batch: member.batch })),
  );
  const identities = new Set(wanted.map(({ input }) => input.identity));
  const single = isTensor(inputs) ? inputs : undefined;
  if (single && identities.size !== 1) {
    throw new PolyheadError(
      "INPUT_MISMATCH",
      `These routes have ${identities.size} inputs; expected them by name: ${wanted.map(({ name }) => name).join(", ")}.`,
      { expected: wanted.map(({ name }) => name) },
    );
  }
  const given: Readonly<Record<string, Tensor>> = single ? {} : (inputs as Readonly<Record<string, Tensor>>);
  const values = new Map<Identity, Tensor>();
  for (const { name, input } of wanted) {
    const value = single ?? (Object.hasOwn(given, name) ? given[name] : undefined);
    if (!value) continue;
    requireFit(name, input, value);
    const other = values.get(input.identity);
    if (other && other !== value) {
      throw new PolyheadError(
        "INPUT_MISMATCH",
        `The input ${JSON.stringify(name)} is the same as another one by another name, but was given another tensor.`,
        { input: name },
      );
    }
    values.set(input.identity, value);
  }
  const missing = wanted.find(({ input }) => !values.has(input.identity));
  if (missing) {
    throw new PolyheadError(
      "INPUT_MISMATCH",
      `The input ${JSON.stringify(missing.name)} is missing; expected ${describe(missing.input)}, got ${Object.keys(given).join(", ") || "none"}.`,
      { input: missing.name, got: Object.keys(given) },
    );
  }
  const names = new Set(wanted.map(({ name }) => name));
  const unknown = Object.keys(given).find((name) => !names.has(name));
  if (unknown !== undefined) {
    throw new PolyheadError(
      "INPUT_MISMATCH",
      `No route of this request has an input ${JSON.stringify(unknown)}; expected ${[...names].join(", ")}.`,
      { input: unknown, expected: [...names] },
    );
  }
  return values;
}

/**
 * Rows of a request that may run together with others: every input has as many, and no member's answer for a row
 * depends on another row. Undefined for all others.
 */
export function rowsOf(
  members: readonly Member[],
  values: ReadonlyMap<Identity, Tensor>,
): number | undefined {
  if (!members.every(({ rowwise }) => rowwise)) return undefined;
  const [rows, ...others] = [...values.values()].map(({ shape }) => shape[0]);
  return others.every((each) => each === rows) ? rows : undefined;
}

/** SHA-256 over inputs with their identities, dtypes and shapes. */
export async function digestOf(values: ReadonlyMap<Identity, Tensor>): Promise<string> {
  const parts = await Promise.all(
    [...values].map(async ([identity, value]) => {
      const bytes = ArrayBuffer.isView(value.data)
        ? bytesOf(value)
        : new TextEncoder().encode(JSON.stringify(value.data));
      return `${identity} ${value.dtype} ${value.shape.join("x")} ${await sha256Aside(bytes)}`;
    }),
  );
  return parts.sort().join("\n");
}

function isTensor(inputs: Inputs): inputs is Tensor {
  return "dtype" in inputs && typeof inputs.dtype === "string";
}

/** A first dimension of one takes any number of rows, because such graphs are run row by row. */
function requireFit(name: string, input: ModelInput, value: Tensor): void {
  const type = declaredType(input.info);
  if (!type) return;
  const { shape } = type;
  const fits =
    type.dtype === value.dtype &&
    (!shape ||
      (shape.length === value.shape.length &&
        shape.every(
          (size, axis) =>
            typeof size === "string" || size === value.shape[axis] || (axis === 0 && size === 1),
        )));
  if (fits && !value.shape.includes(0)) return;
  const got = `${value.dtype} ${formatShape(value.shape)}`;
  throw new PolyheadError(
    "INPUT_MISMATCH",
    `The input ${JSON.stringify(name)} is ${got}; expected ${describe(input)}.`,
    { input: name, expected: describe(input), got },
  );
}

function describe({ info }: ModelInput): string {
  const type = declaredType(info);
  return type ? `${type.dtype}${type.shape ? ` ${formatShape(type.shape)}` : ""}` : "a tensor";
}
