/**
 * What the standard says of an operator at a version of its operator set: since when it has been the way it is
 * there, and what its attributes are when a node leaves them out. The table is generated; operators of other
 * parties (`com.microsoft` and the like) are not in it. Defaults that depend on an input's rank, such as the
 * strides of a convolution, are no constants of the schema and are not in it either.
 */
import {
  type DefaultValue,
  NEWEST_OPSET,
  OPERATOR_SCHEMAS,
  type SchemaVersion,
} from "./generated/operator-schemas.js";
import { canonicalDomain } from "./model.js";

export type { DefaultValue };

const NONE: Readonly<Record<string, DefaultValue>> = Object.freeze({});

/**
 * The version of the operator set that last changed the operator, as seen from `opset`: a Relu of set 17 is the
 * one of set 14. An operator or operator set that the table does not know, and one from after its time, may
 * have changed in any version, so that the answer is `opset` itself.
 */
export function schemaVersion(domain: string, opType: string, opset: number): number {
  return findSchema(domain, opType, opset)?.[0] ?? opset;
}

/**
 * The attributes that have a default at `opset`, by name, in alphabetical order and in the form that
 * `attribute` in model.ts takes: INT and INTS as numbers, FLOAT marked and exact as float32. Empty for an
 * operator that the table does not know.
 */
export function attributeDefaults(
  domain: string,
  opType: string,
  opset: number,
): Readonly<Record<string, DefaultValue>> {
  return findSchema(domain, opType, opset)?.[1] ?? NONE;
}

function findSchema(domain: string, opType: string, opset: number): SchemaVersion | undefined {
  const operators = own(OPERATOR_SCHEMAS, canonicalDomain(domain));
  const newest = own(NEWEST_OPSET, canonicalDomain(domain));
  if (!operators || newest === undefined || opset > newest) return undefined;
  return own(operators, opType)?.findLast(([since]) => since <= opset);
}

/** A row of a table by a name that comes from a file and may be `constructor`. */
function own<T>(table: Readonly<Record<string, T>>, name: string): T | undefined {
  return Object.hasOwn(table, name) ? table[name] : undefined;
}
