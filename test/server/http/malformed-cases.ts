/**
 * Requests that are wrong in one known way each, for servers with the models of `everything` in `client.ts`, and the
 * limits that they are made for.
 */
import { gzipSync } from "node:zlib";
import { type Answer, DOUBLE, type Sent } from "./client.js";

/** Limits that some of the requests break. */
export const LIMITS = {
  tensorElements: 10_000,
  bodyBytes: 100_000,
  controlBytes: 20_000,
  uploadBytes: 50_000,
};

export const INFER = "/v2/models/double/infer";
/** Takes three inputs. */
export const ECHO = "/v2/models/echo_several/infer";
const echoOf = (dtype: string) => `/v2/models/echo_${dtype}/infer`;
export const CONTROL = "/polyhead/v1";

export interface Case {
  readonly name: string;
  readonly path: string;
  readonly sent: Sent;
}

const LONG = "n".repeat(300);
const WRONG: Readonly<Record<string, readonly unknown[]>> = {
  object: [null, 3, "x", [], [{}], true],
  list: [null, 3, "x", {}, true],
  text: [null, 3, [], {}, true, 1.5],
  name: [null, 3, [], {}, true, "", "a\u0000b", "a\nb", LONG],
  shape: [
    null,
    3,
    "x",
    {},
    ["1", 2],
    [1, 2.5],
    [-1, 2],
    [null, 2],
    [[1], 2],
    [1, 3],
    [2, 2],
    [],
    [1e300, 2],
    [10_001, 0],
    Array(40).fill(1),
  ],
  datatype: [null, 3, "", "fp32", "FLOAT", "FP8", LONG, [], {}, "INT64", "BOOL", "constructor"],
  data: [
    null,
    3,
    "x",
    {},
    [],
    [1],
    [1, 2, 3],
    [1, "2"],
    [1, null],
    [1, {}],
    [1, [2]],
    [[1], [2]],
    [[1, 2, 3]],
    [
      [1, 2],
      [3, 4],
    ],
    [true, 1],
    [1, 3.5e38],
    [1, "nan"],
  ],
  parameters: [null, 3, "x", true],
  bool: [null, 3, "true", [], {}],
  count: [null, -1, 1.5, "3", [], {}, true],
};

/** The JSON with the value at the path replaced. */
export function replaced(value: unknown, path: readonly (string | number)[], by: unknown): unknown {
  const [first, ...rest] = path;
  if (first === undefined) return by;
  const copy: Record<string, unknown> | unknown[] = Array.isArray(value)
    ? [...value]
    : { ...(value as object) };
  Reflect.set(copy, first, replaced(Reflect.get(copy, first), rest, by));
  return copy;
}

function variants(
  label: string,
  path: string,
  base: unknown,
  places: readonly (readonly [string, (string | number)[]])[],
): Case[] {
  return places.flatMap(([kind, place]) =>
    (WRONG[kind] ?? []).map((wrong) => ({
      name: `${label}: ${place.join(".") || "all"} is ${String(JSON.stringify(wrong)).slice(0, 40)}`,
      path,
      sent: {
        headers: { "content-type": "application/json" },
        body: JSON.stringify(replaced(base, place, wrong)),
      },
    })),
  );
}

export const FULL = {
  id: "1",
  parameters: { timeout: 60_000_000 },
  ...DOUBLE,
  outputs: [{ name: "y", parameters: {} }],
};
const TARGET = {
  targets: {
    double: {
      revisions: [
        { revision: "a", weight: 1 },
        { revision: "b", weight: 1 },
      ],
      shadows: ["c"],
      limits: { requests: 5 },
    },
  },
  reason: "test",
};

const json = (name: string, path: string, body: unknown): Case => ({
  name,
  path,
  sent: { body: JSON.stringify(body) },
});
const text = (
  name: string,
  body: string | Uint8Array,
  headers: Record<string, string> = {},
  path = INFER,
): Case => ({
  name,
  path,
  sent: { body, headers },
});

const elements = (datatype: string, data: unknown): Case => {
  const floats = { FP16: "float16", BF16: "bfloat16", FP32: "float32", FP64: "float64" };
  const name = { ...floats, BYTES: "string" }[datatype] ?? datatype.toLowerCase();
  const inputs = [{ name, shape: [1], datatype, data: [data] }];
  return json(`${datatype} of ${JSON.stringify(data)}`, echoOf(name), { inputs });
};

function binary(name: string, input: object, rest: string, length: (json: number) => string): Case {
  const head = JSON.stringify({ inputs: [{ name: "x", shape: [1, 2], datatype: "FP32", ...input }] });
  return text(`binary: ${name}`, head + rest, { "inference-header-content-length": length(head.length) });
}

const size = (binary_data_size: unknown) => ({ parameters: { binary_data_size } });
const same = (length: number) => String(length);

export const CASES: readonly Case[] = [
  ...variants("infer", INFER, FULL, [
    ["object", []],
    ["text", ["id"]],
    ["parameters", ["parameters"]],
    ["list", ["inputs"]],
    ["object", ["inputs", 0]],
    ["name", ["inputs", 0, "name"]],
    ["shape", ["inputs", 0, "shape"]],
    ["datatype", ["inputs", 0, "datatype"]],
    ["data", ["inputs", 0, "data"]],
    ["parameters", ["inputs", 0, "parameters"]],
    ["list", ["outputs"]],
    ["object", ["outputs", 0]],
    ["name", ["outputs", 0, "name"]],
    ["parameters", ["outputs", 0, "parameters"]],
    ["bool", ["outputs", 0, "parameters", "binary_data"]],
    ["bool", ["parameters", "binary_data_output"]],
    ["bool", ["parameters", "cache"]],
    ["count", ["parameters", "timeout"]],
    ["count", ["parameters", "priority"]],
    ["text", ["parameters", "key"]],
  ]),
  ...variants("switch", `${CONTROL}/switch`, TARGET, [
    ["object", []],
    ["object", ["targets"]],
    ["text", ["targets", "double"]],
    ["list", ["targets", "double", "revisions"]],
    ["object", ["targets", "double", "revisions", 0]],
    ["name", ["targets", "double", "revisions", 0, "revision"]],
    ["list", ["targets", "double", "shadows"]],
    ["name", ["targets", "double", "shadows", 0]],
    ["object", ["targets", "double", "limits"]],
    ["count", ["targets", "double", "limits", "requests"]],
    ["text", ["reason"]],
  ]),
  ...[-1, 0, null, "1", 1e10, [], {}].map((weight) =>
    json(
      `switch: weight ${weight}`,
      `${CONTROL}/switch`,
      replaced(TARGET, ["targets", "double", "revisions", 0, "weight"], weight),
    ),
  ),
  json("switch: nothing", `${CONTROL}/switch`, { targets: {} }),
  json("switch: unknown key", `${CONTROL}/switch`, { ...TARGET, force: true }),
  json("switch: a revision twice", `${CONTROL}/switch`, {
    targets: { double: { revisions: [{ revision: "a", weight: 1 }], shadows: ["a"] } },
  }),
  json("switch: limits of one", `${CONTROL}/switch`, {
    targets: { double: { revisions: [{ revision: "a", weight: 1 }], limits: { requests: 1 } } },
  }),
  json("switch: unknown route", `${CONTROL}/switch`, { targets: { double: "a", none: "b" } }),
  json("switch: a path as route", `${CONTROL}/switch`, { targets: { "../double": "a" } }),
  ...variants("index", "/v2/repository/index", {}, [["bool", ["ready"]]]),
  ...variants("load", "/v2/repository/models/double/load", {}, [["parameters", ["parameters"]]]),
  ...variants("rollback", `${CONTROL}/routes/double/rollback`, {}, [["text", ["reason"]]]),

  ...[
    "",
    "{",
    "[1",
    "nul",
    "{'inputs':[]}",
    "\u0000",
    "NaN",
    '{"inputs":[NaN]}',
    "{}{}",
    '{"a":1,}',
    "[".repeat(50_000),
    '"'.repeat(999),
  ].map((body) => text(`body ${JSON.stringify(body).slice(0, 30)}`, body)),
  text("body that is not UTF-8", Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x7d])),
  ...["[", '{"a":'].flatMap((open) => {
    const deep = `${open.repeat(9000)}1234567890123456789${(open === "[" ? "]" : "}").repeat(9000)}`;
    return ["1", deep].flatMap((whole) => [
      text(
        `deep data ${open} ${whole.length}`,
        `{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":${deep}}],"id":${whole}}`,
      ),
      text(
        `deep datatype ${open} ${whole.length}`,
        `{"inputs":[{"name":"x","shape":[1,2],"data":[${whole},2],"datatype":${deep}}]}`,
      ),
      text(
        `deep shape ${open} ${whole.length}`,
        `{"inputs":[{"name":"x","shape":${deep},"data":[${whole},2],"datatype":"FP32"}]}`,
      ),
    ]);
  }),
  text(
    "deep and short numbers",
    `{"inputs":[{"name":"x","shape":${"[".repeat(9000)}${"]".repeat(9000)},"data":[1,2],"datatype":"FP32"}]}`,
  ),
  json("an input twice", INFER, { inputs: [...DOUBLE.inputs, ...DOUBLE.inputs] }),
  json("no data", INFER, { inputs: [{ name: "x", shape: [1, 2], datatype: "FP32" }] }),
  json("missing input", INFER, { inputs: [{ ...DOUBLE.inputs[0], name: "z" }] }),
  json(
    "__proto__ as input",
    INFER,
    JSON.parse('{"inputs":[{"name":"__proto__","shape":[1],"datatype":"FP32","data":[1]}]}'),
  ),
  json("too many inputs", INFER, {
    inputs: Array.from({ length: 300 }, (_, index) => ({ ...DOUBLE.inputs[0], name: `x${index}` })),
  }),
  json("too many outputs", INFER, {
    ...DOUBLE,
    outputs: Array.from({ length: 300 }, (_, index) => ({ name: `x${index}` })),
  }),
  json("too many elements in all", ECHO, {
    inputs: ["int8", "uint8"].map((name) => ({
      name,
      shape: [6000],
      datatype: name.toUpperCase(),
      data: Array(6000).fill(1),
    })),
  }),
  ...["z", "double/z", "none/y", "/y", "../y", "a/b/c", "constructor", "__proto__"].map((name) =>
    json(`output ${name}`, INFER, { ...DOUBLE, outputs: [{ name }] }),
  ),
  json("an output twice", INFER, { ...DOUBLE, outputs: [{ name: "y" }, { name: "y" }] }),
  ...[
    "none",
    "double,none",
    "a/b",
    "..",
    ",",
    ["double", 3],
    3,
    {},
    Array(300).fill("double"),
    `${LONG}`,
  ].map((routes) =>
    json(`routes ${String(JSON.stringify(routes)).slice(0, 30)}`, INFER, {
      ...DOUBLE,
      parameters: { routes },
    }),
  ),
  ...[1.5, 256, -1, "1", null, true, [1], {}].map((value) => elements("UINT8", value)),
  ...[128, -129, 0.1].map((value) => elements("INT8", value)),
  ...[65536, -1].map((value) => elements("UINT16", value)),
  ...[32768, -32769].map((value) => elements("INT16", value)),
  ...[4294967296, -1].map((value) => elements("UINT32", value)),
  ...[2147483648, -2147483649, 1e100].map((value) => elements("INT32", value)),
  ...[9.3e18, 0.5, "x", "", "9223372036854775808", "-9223372036854775809", "1.0", null].map((value) =>
    elements("INT64", value),
  ),
  ...["18446744073709551616", -1, "-1", "0x1"].map((value) => elements("UINT64", value)),
  ...[0, 1, "true", null, []].map((value) => elements("BOOL", value)),
  ...[65520, -1e9, "inf", null, true].map((value) => elements("FP16", value)),
  ...[3.4e38 * 1.01, "1", null].map((value) => elements("FP32", value)),
  ...[3.4e38 * 1.01, "x"].map((value) => elements("BF16", value)),
  ...["1", null, true].map((value) => elements("FP64", value)),
  ...[1, null, true, ["a"]].map((value) => elements("BYTES", value)),
  text(
    "long whole numbers as text",
    `{"inputs":[{"name":"string","shape":[1],"datatype":"BYTES","data":[12345678901234567890]}]}`,
    {},
    echoOf("string"),
  ),
  text(
    "a long whole number as INT32",
    `{"inputs":[{"name":"int32","shape":[1],"datatype":"INT32","data":[12345678901234567890]}]}`,
    {},
    echoOf("int32"),
  ),

  binary("too short", size(8), "1234567", same),
  binary("too long", size(8), "123456789", same),
  binary("size of another shape", size(4), "1234", same),
  binary("no bytes", size(8), "", same),
  ...[-1, 1.5, "8", null, [], {}, true, 1e300].map((wrong) =>
    binary(`size ${JSON.stringify(wrong)}`, size(wrong), "12345678", same),
  ),
  binary("data as well", { ...size(8), data: [1, 2] }, "12345678", same),
  binary("rest without size", { data: [1, 2] }, "12345678", same),
  ...["-1", "x", "1.5", "1e3", " ", "99999999", "9".repeat(30), "0x10", "1, 2"].map((length) =>
    binary(`header length ${JSON.stringify(length)}`, size(8), "12345678", () => length),
  ),
  binary("header length within JSON", size(8), "12345678", (length) => String(length - 1)),
  binary("header length beyond JSON", size(8), "12345678", (length) => String(length + 1)),
  binary("bool of 2", { name: "bool", datatype: "BOOL", shape: [1], ...size(1) }, "\u0002", same),
  binary(
    "text that ends early",
    { name: "string", datatype: "BYTES", shape: [1], ...size(5) },
    "\u0004\u0000\u0000\u0000a",
    same,
  ),
  json("shared memory", INFER, {
    inputs: [{ ...DOUBLE.inputs[0], parameters: { shared_memory_region: "r" } }],
  }),
  json("shared memory of an output", INFER, {
    ...DOUBLE,
    outputs: [{ name: "y", parameters: { shared_memory_region: "r" } }],
  }),
  json("classification", INFER, { ...DOUBLE, outputs: [{ name: "y", parameters: { classification: 0 } }] }),
  json("classification of words", INFER, {
    ...DOUBLE,
    outputs: [{ name: "y", parameters: { classification: "2" } }],
  }),
  text(
    "no header length",
    JSON.stringify({ inputs: [{ name: "x", shape: [1, 2], datatype: "FP32", ...size(8) }] }),
  ),
  text("raw of odd size", "1234567", { "inference-header-content-length": "0" }),
  text("raw for many inputs", "12345678", { "inference-header-content-length": "0" }, ECHO),

  text("gzip that is none", "abc", { "content-encoding": "gzip" }),
  text("deflate that is none", "abc", { "content-encoding": "deflate" }),
  text("gzip cut off", gzipSync(JSON.stringify(DOUBLE)).subarray(0, 30), { "content-encoding": "gzip" }),
  text("unknown encoding", JSON.stringify(DOUBLE), { "content-encoding": "br" }),
  text("two encodings", JSON.stringify(DOUBLE), { "content-encoding": "gzip, gzip" }),
  text("a bomb", gzipSync(Buffer.alloc(30_000_000)), { "content-encoding": "gzip" }),
  text("too large", "x".repeat(100_001)),

  text("another kind of image", "abc", { "content-type": "image/gif" }),
  text("an empty image", "", { "content-type": "image/png" }),
  ...[
    "top=0",
    "top=-1",
    "top=x",
    "top=1.5",
    "top=1&top=2",
    "threshold=2",
    "threshold=-1",
    "threshold=x",
    "threshold=NaN",
    "routes=none",
    "routes=a/b",
    "unheard=of",
    "cache=x",
    "timeout=-1",
    `key=${LONG}`,
    "key=%00",
    "id=%0a",
  ].map((query) => text(`image ?${query}`, "abc", { "content-type": "image/png" }, `${INFER}?${query}`)),
  ...[
    "",
    "x",
    "--b",
    "--b\r\n",
    "--b\r\n\r\n",
    "--b--\r\n",
    "--c\r\n\r\nx\r\n--c--",
    '--b\r\ncontent-disposition: form-data; name="a"\r\n\r\n1\r\n--b--\r\n',
    '--b\r\ncontent-disposition: form-data; name="a"; filename="f"\r\n\r\n\r\n--b--\r\n',
    '--b\r\ncontent-disposition: form-data; name="a"; filename="f"\r\n\r\nabc',
  ].map((body) =>
    text(`form ${JSON.stringify(body)}`, body, { "content-type": "multipart/form-data; boundary=b" }),
  ),
  text("form without boundary", "x", { "content-type": "multipart/form-data" }),
  text(
    "form of two files",
    `${["f", "g"]
      .map((name) => `--b\r\ncontent-disposition: form-data; name="${name}"; filename="f"\r\n\r\nabc\r\n`)
      .join("")}--b--\r\n`,
    {
      "content-type": "multipart/form-data; boundary=b",
    },
  ),
  text(
    "form with many fields",
    `${Array.from(
      { length: 50 },
      (_, index) => `--b\r\ncontent-disposition: form-data; name="f${index}"\r\n\r\nabc\r\n`,
    ).join("")}--b--\r\n`,
    {
      "content-type": "multipart/form-data; boundary=b",
    },
  ),
  text(
    "form with __proto__",
    '--b\r\ncontent-disposition: form-data; name="__proto__"\r\n\r\n1\r\n--b--\r\n',
    { "content-type": "multipart/form-data; boundary=b" },
  ),
  text("a content type that is none", "x", { "content-type": "///;;" }),
  text("an empty upload", "", {}, `${CONTROL}/models`),
  text("an upload to a path", "abc", {}, `${CONTROL}/models?route=..%2Fx`),
  text("an upload with unknown fields", "abc", {}, `${CONTROL}/models?rout=x`),
  text("an upload that is too large", "x".repeat(50_001), {}, `${CONTROL}/models`),

  ...[
    "%2F",
    "..%2Fdouble",
    "%2e%2e",
    "..",
    ".",
    "%00",
    "a%00b",
    "%5C",
    "a%5Cb",
    "%",
    "%zz",
    "%ff",
    "%ed%a0%80",
    LONG,
    "n".repeat(9000),
    "%0d%0a",
    "none",
    "__proto__",
    "constructor",
  ].flatMap((name) => [
    { name: `model ${name.slice(0, 20)}`, path: `/v2/models/${name}`, sent: {} },
    { name: `infer ${name.slice(0, 20)}`, path: `/v2/models/${name}/infer`, sent: { body: DOUBLE } },
    { name: `version ${name.slice(0, 20)}`, path: `/v2/models/double/versions/${name}`, sent: {} },
    { name: `route ${name.slice(0, 20)}`, path: `${CONTROL}/routes/${name}`, sent: { method: "DELETE" } },
    {
      name: `unload ${name.slice(0, 20)}`,
      path: `/v2/repository/models/${name}/unload`,
      sent: { method: "POST" },
    },
  ]),
  ...["limit=0", "limit=x", "limit=1.5", "foo=1"].map((query) => ({
    name: `history ?${query}`,
    path: `${CONTROL}/history?${query}`,
    sent: {},
  })),
  ...["PUT", "PATCH", "DELETE", "OPTIONS"].map((method) => ({
    name: `${method} infer`,
    path: INFER,
    sent: { method },
  })),
  { name: "no such path", path: "/v3", sent: {} },
  { name: "a folder above", path: "/v2/../../etc/passwd", sent: {} },
  {
    name: "an author of 300 letters",
    path: `${CONTROL}/routes/double/rollback`,
    sent: { method: "POST", headers: { "x-polyhead-author": LONG } },
  },
];

/** Whether it is a status of 4xx with a reason. */
export function isRefusal(answer: Answer): boolean {
  if (answer.status < 400 || answer.status > 499) return false;
  const { error } = answer.json() as { error: unknown };
  return typeof error === "string" && error.length > 10;
}
