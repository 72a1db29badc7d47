/** Values from outside against the schemas that also document them, with messages that say where and what. */
import { IsBoolean, IsInteger, IsNumber, type Static, type TObject, type TSchema } from "typebox";
import { Compile, type Validator } from "typebox/schema";
import { PolyheadError } from "../../base/errors.js";
import { shown } from "../protocol/shown.js";

const validators = new WeakMap<TSchema, Validator>();

/**
 * The value, when it is what the schema says.
 * @param what is checked, as the beginning of a sentence: `The body`
 * @throws PolyheadError INVALID_ARGUMENT
 */
export function checked<Type extends TSchema>(schema: Type, value: unknown, what: string): Static<Type> {
  const validator = validatorOf(schema);
  if (validator.Check(value)) return value as Static<Type>;
  const [, errors] = validator.Errors(value);
  const first = errors.find(({ keyword }) => keyword !== "boolean") ?? errors[0];
  const path = first?.instancePath.slice(1) ?? "";
  const names =
    first?.keyword === "additionalProperties" ? ` ${first.params.additionalProperties.map(shown)}` : "";
  const got = first?.keyword === "required" || names ? "" : `; got ${shown(at(value, path))}`;
  const place = path === "" ? what : `${what}: ${path}`;
  throw new PolyheadError("INVALID_ARGUMENT", `${place} ${first?.message ?? "is not valid"}${names}${got}.`, {
    path,
  });
}

/**
 * Fields of a query or form, which are all texts, as the schema has them.
 * @throws PolyheadError INVALID_ARGUMENT
 */
export function checkedFields<Type extends TObject>(
  schema: Type,
  fields: object,
  what: string,
): Static<Type> {
  const values = Object.entries(fields).map(([name, value]) => [
    name,
    fieldValue(schema.properties[name], value),
  ]);
  return checked(schema, Object.fromEntries(values), what);
}

/** The value of a text where the schema wants something else and the text is just that; else the text. */
function fieldValue(schema: TSchema | undefined, text: unknown): unknown {
  if (typeof text !== "string" || schema === undefined) return text;
  const isNumber = (IsInteger(schema) || IsNumber(schema)) && /^-?\d+(\.\d+)?(e[+-]?\d+)?$/i.test(text);
  if (isNumber) return Number(text);
  return IsBoolean(schema) && /^(true|false)$/.test(text) ? text === "true" : text;
}

function validatorOf(schema: TSchema): Validator {
  const known = validators.get(schema);
  if (known) return known;
  const validator: Validator = Compile(schema);
  validators.set(schema, validator);
  return validator;
}

function at(value: unknown, path: string): unknown {
  let found = value;
  for (const part of path === "" ? [] : path.split("/")) {
    if (typeof found !== "object" || found === null) return undefined;
    found = Reflect.get(found, part.replaceAll("~1", "/").replaceAll("~0", "~"));
  }
  return found;
}
