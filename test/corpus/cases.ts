/**
 * Broken, lying and greedy model files, made the same way each time: small sound models that were cut, flipped or
 * rewritten, files of other kinds, and messages written by hand.
 */
import { execFileSync } from "node:child_process";
import { mkdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync, zipSync } from "fflate";
import { attribute, type Graph, graph, type Model, model, node, valueInfo } from "../../src/onnx/model.js";
import { weight } from "../../src/onnx/weight.js";
import { modelBytes, serializeModel } from "../../src/onnx/write.js";
import { float32, int64 } from "../../src/tensor/tensor.js";
import { ARCHITECTURES, architecture } from "../onnx/architectures.js";
import { bytes, field, file, int, joined, nodeField, times, valueField, varint } from "./protobuf.js";

/** A case: the files of a folder, of which `model.onnx` is opened. */
export interface Case {
  readonly name: string;
  readonly model: Uint8Array;
  /** What lies beside it. */
  readonly beside?: Readonly<Record<string, Uint8Array>>;
  /** Whether a reader may find nothing wrong with it. */
  readonly harmless?: boolean;
}

/** Repeatable irregular numbers from 0 to 1. */
function* noise(seed: number): Generator<number, never> {
  for (let state = seed >>> 0; ; ) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    yield state / 2 ** 32;
  }
}

const sound = modelBytes(architecture(ARCHITECTURES[0] ?? "", "N"));
const attention = modelBytes(architecture("transformer block", 1));

function cut(): Case[] {
  return Array.from({ length: 60 }, (_, at) => {
    const whole = at % 2 === 0 ? sound : attention;
    const length = Math.floor((whole.length * at) / 60);
    return { name: `cut after ${length}`, model: whole.slice(0, length) };
  });
}

function flipped(): Case[] {
  const numbers = noise(7);
  return Array.from({ length: 120 }, (_, at) => {
    const model = (at % 2 === 0 ? sound : attention).slice();
    const changes = 1 + (at % 5);
    for (let change = 0; change < changes; change++) {
      // The structure stands at the beginning and the end; most of the middle is weights.
      const place = Math.floor(numbers.next().value * model.length);
      model[place] = (model[place] ?? 0) ^ (1 << Math.floor(numbers.next().value * 8));
    }
    return { name: `flipped ${at}`, model, harmless: true };
  });
}

function text(content: string): Uint8Array {
  return new TextEncoder().encode(content);
}

function otherKinds(): Case[] {
  const random = noise(3);
  const kinds: Record<string, Uint8Array> = {
    empty: new Uint8Array(),
    "one zero": new Uint8Array(1),
    "a megabyte of zeros": new Uint8Array(2 ** 20),
    "a megabyte of ones": new Uint8Array(2 ** 20).fill(255),
    "random bytes": Uint8Array.from({ length: 50_000 }, () => Math.floor(random.next().value * 256)),
    text: text("This is not a model.\n".repeat(100)),
    json: text(JSON.stringify({ format: "graph-model", modelTopology: {} })),
    html: text("<!doctype html><html><title>404</title></html>"),
    "a git lfs pointer": text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
    zip: zipSync({ "model.onnx": sound }),
    gzip: gzipSync(sound),
    png: bytes([0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10, 0, 0, 0, 13], text("IHDR"), new Uint8Array(50)),
    jpeg: bytes([0xff, 0xd8, 0xff, 0xe0, 0, 16], text("JFIF"), new Uint8Array(50)),
    hdf5: bytes([0x89], text("HDF\r\n"), [26, 10], new Uint8Array(90)),
    elf: bytes([0x7f], text("ELF"), new Uint8Array(60)),
    npy: bytes([0x93], text("NUMPY"), [1, 0], new Uint8Array(60)),
    "a tensor alone": field(9, new Uint8Array(40)),
  };
  return Object.entries(kinds).map(([name, model]) => ({ name: `kind: ${name}`, model }));
}

function greedy(): Case[] {
  const x = valueField(11, "x", [1, 4]);
  const y = valueField(12, "y", [1, 4]);
  const relu = nodeField("Relu", ["x"], ["y"]);
  const nested = (depth: number): Uint8Array => {
    let inner = bytes(nodeField("Relu", ["x"], ["y0"]), valueField(12, "y0", [1]));
    for (let level = 1; level <= depth; level++) {
      const branch = field(5, bytes(field(1, "then_branch"), field(6, inner), int(20, 5)));
      inner = bytes(nodeField("If", ["x"], [`y${level}`], branch), valueField(12, `y${level}`, [1]));
    }
    return inner;
  };
  const tensor = (...fields: Uint8Array[]) => field(5, bytes(field(8, "w"), ...fields));
  const before = (at: number) => (at === 0 ? "x" : `v${at - 1}`);
  const relus = Array.from({ length: 4e4 }, (_, at) => nodeField("Relu", [before(at)], [`v${at}`]));
  const branches = Array.from({ length: 1e4 }, (_, at) => {
    const branch = bytes(field(1, "then_branch"), field(6, valueField(12, before(at), [1])), int(20, 5));
    return nodeField("If", ["x"], [`v${at}`], field(5, branch));
  });
  const huge: Record<string, Uint8Array> = {
    "five million metadata entries": bytes(file(relu, x, y), times(5e6, Uint8Array.of(0x72, 0))),
    "five million nodes": file(x, times(5e6, field(1, new Uint8Array())), y),
    "five million weights": file(x, relu, times(5e6, field(5, new Uint8Array())), y),
    "five million attributes": file(
      x,
      nodeField("Relu", ["x"], ["y"], times(5e6, field(5, new Uint8Array()))),
      y,
    ),
    "five million empty names": file(x, nodeField("Concat", [], ["y"], times(5e6, field(1, ""))), y),
    "five million dimensions": file(x, relu, tensor(int(2, 1), field(1, new Uint8Array(5e6).fill(1))), y),
    "thirty million dimensions": file(x, relu, tensor(int(2, 1), field(1, new Uint8Array(3e7).fill(1))), y),
    "thirty million small integers": file(
      x,
      relu,
      tensor(int(2, 7), int(1, 3e7), field(7, new Uint8Array(3e7))),
      y,
    ),
    "ten million floats in a list": file(
      x,
      relu,
      tensor(int(2, 1), int(1, 1e7), field(4, new Uint8Array(4e7))),
      y,
    ),
    "five million unknown fields": bytes(file(relu, x, y), times(5e6, int(50, 1))),
    "an unknown group": bytes(file(relu, x, y), [(50 << 3) | 3, 3, (50 << 3) | 4, 3]),
    "nested unknown groups": bytes(file(relu, x, y), times(1e5, varint((50 << 3) | 3))),
    "a graph that claims a gigabyte": bytes(int(1, 8), field(7, new Uint8Array(10), 2 ** 30)),
    "a graph that claims 4 GiB": bytes(int(1, 8), field(7, new Uint8Array(10), 2 ** 32 - 1)),
    "a node that leaves its graph": bytes(
      int(1, 8),
      field(7, field(1, new Uint8Array(4), 40)),
      new Uint8Array(60),
    ),
    "a number that does not end": bytes(int(1, 8), [8], new Uint8Array(30).fill(255)),
    "subgraphs 20 deep": file(x, nested(20)),
    "subgraphs 40 deep": file(x, nested(40)),
    "subgraphs 2000 deep": file(x, nested(2000)),
    "a node of 300000 inputs": file(x, nodeField("Sum", Array(3e5).fill("x"), ["y"]), y),
    "a chain of 40000 nodes": file(x, joined(relus), valueField(12, "v39999", [1, 4])),
    "a million nodes": file(x, times(1e6, nodeField("Relu", ["x"], [])), y),
    "a chain of 40000 nodes backwards": file(x, joined(relus.toReversed()), valueField(12, "v39999", [1, 4])),
    "10000 branches": file(x, joined(branches), valueField(12, "v9999", [1, 4])),
    "a name of 20 MB that nothing makes": file(x, nodeField("Relu", ["n".repeat(2e7)], ["y"]), y),
  };
  return Object.entries(huge).map(([name, model]) => ({
    name: `greedy: ${name}`,
    model,
    harmless: /floats|deep|chain|branches|inputs/.test(name),
  }));
}

function rewritten(): Case[] {
  const cases: Record<string, (of: Model) => void> = {
    "no graph inputs": (of) => {
      of.graph.input = [];
    },
    "no graph outputs": (of) => {
      of.graph.output = [];
    },
    "no nodes": (of) => {
      of.graph.node = [];
    },
    "an output that nothing makes": (of) => {
      of.graph.output.push(valueInfo("ghost", "float32", [1]));
    },
    "an input that nothing makes": (of) => {
      firstNode(of).input.push("ghost");
    },
    "a node twice": (of) => {
      of.graph.node.push(firstNode(of));
    },
    "a node that reads itself": (of) => {
      firstNode(of).input.push(firstNode(of).output[0] ?? "");
    },
    "a circle": (of) => {
      firstNode(of).input.push("features");
    },
    "an input twice": (of) => {
      of.graph.input.push(valueInfo("x", "float32", [1]));
    },
    "a weight twice": (of) => {
      of.graph.initializer.push(weight(of.graph.initializer[0]?.name ?? "", float32([1], [1])));
    },
    "a weight that a node makes": (of) => {
      of.graph.initializer.push(weight("features", float32([1], [1])));
    },
    "a negative dimension": (of) => {
      firstWeight(of).dims = [-1n, 4n];
    },
    "a dimension of 2^62": (of) => {
      firstWeight(of).dims = [2n ** 62n];
    },
    "dimensions that overflow to nothing": (of) => {
      firstWeight(of).dims = [2n ** 62n, 4n, 0n];
    },
    "a thousand dimensions": (of) => {
      firstWeight(of).dims = Array(1000).fill(2n);
    },
    "too few bytes": (of) => {
      firstWeight(of).rawData = firstWeight(of).rawData.slice(0, -1);
    },
    "too many bytes": (of) => {
      firstWeight(of).rawData = bytes(firstWeight(of).rawData, [0]);
    },
    "a dtype that is none": (of) => {
      firstWeight(of).dataType = 99;
    },
    "a dtype of zero": (of) => {
      firstWeight(of).dataType = 0;
    },
    "a text as weight": (of) => {
      firstWeight(of).dataType = 8;
    },
    "an attribute __proto__": (of) => {
      firstNode(of).attribute.push(attribute("__proto__", 1));
    },
    "an attribute constructor": (of) => {
      firstNode(of).attribute.push(attribute("constructor", 1));
    },
    "an attribute without a type": (of) => {
      firstNode(of).attribute.push(Object.assign(attribute("a", 1), { type: 0 }));
    },
    "an attribute of an unknown type": (of) => {
      firstNode(of).attribute.push(Object.assign(attribute("a", 1), { type: 77 }));
    },
    "an operator constructor": (of) => {
      firstNode(of).opType = "constructor";
    },
    "an operator __proto__": (of) => {
      firstNode(of).opType = "__proto__";
    },
    "an operator without a name": (of) => {
      firstNode(of).opType = "";
    },
    "values named __proto__": (of) => {
      firstNode(of).output = ["__proto__"];
      of.graph.output = [valueInfo("__proto__", "float32", [1])];
    },
    "no operator sets": (of) => {
      of.opsetImport = [];
    },
    "a negative operator set": (of) => {
      of.opsetImport = of.opsetImport.map((each) => ({ ...each, version: -5n }));
    },
    "an operator set of 2^60": (of) => {
      of.opsetImport = of.opsetImport.map((each) => ({ ...each, version: 2n ** 60n }));
    },
    "a file version of 2^60": (of) => {
      of.irVersion = 2n ** 60n;
    },
    "a negative file version": (of) => {
      of.irVersion = -1n;
    },
    "groups of zero": (of) => {
      firstNode(of).attribute = [attribute("group", 0)];
    },
    "negative strides": (of) => {
      firstNode(of).attribute = [attribute("strides", [-1, -1])];
    },
    "strides of zero": (of) => {
      firstNode(of).attribute = [attribute("strides", [0, 0])];
    },
    "pads of 2^40": (of) => {
      firstNode(of).attribute = [attribute("pads", [2 ** 40, 2 ** 40, 2 ** 40, 2 ** 40])];
    },
    "an image of 2^40 pixels": (of) => {
      of.graph.input = [valueInfo("x", "float32", ["N", 4, 2 ** 20, 2 ** 20])];
    },
    "a shape of a thousand dimensions": (of) => {
      of.graph.input = [valueInfo("x", "float32", Array(1000).fill(2))];
    },
    "metadata that is not JSON": (of) => {
      of.metadataProps.push({
        $typeName: "onnx.StringStringEntryProto",
        key: "polyhead.taps",
        value: "{",
      });
    },
    "metadata of the wrong kind": (of) => {
      of.metadataProps.push({
        $typeName: "onnx.StringStringEntryProto",
        key: "polyhead.labels",
        value: "7",
      });
    },
    "metadata __proto__": (of) => {
      of.metadataProps.push({
        $typeName: "onnx.StringStringEntryProto",
        key: "polyhead.__proto__",
        value: '{"a":1}',
      });
    },
    "metadata nested 100000 deep": (of) => {
      of.metadataProps.push({
        $typeName: "onnx.StringStringEntryProto",
        key: "polyhead.taps",
        value: "[".repeat(1e5) + "]".repeat(1e5),
      });
    },
  };
  return Object.entries(cases).map(([name, change]) => {
    const made = architecture(ARCHITECTURES[0] ?? "", "N");
    change(made);
    return { name: `rewritten: ${name}`, model: modelBytes(made), harmless: true };
  });
}

function firstNode({ graph: { node: nodes } }: Model) {
  const [first] = nodes;
  if (!first) throw new Error("the model has no nodes");
  return first;
}

function firstWeight({ graph: { initializer } }: Model) {
  const [first] = initializer;
  if (!first) throw new Error("the model has no weights");
  return first;
}

/** Small files that compute something enormous. */
function expanding(): Case[] {
  const many = 2 ** 20;
  const built: Record<string, Graph> = {
    "a constant of 2^40": part([node("ConstantOfShape", ["s"], ["y"])], [many, many]),
    "an expansion to 2^40": part([node("Expand", ["x", "s"], ["y"])], [many, many]),
    "a tiling to 2^40": part([node("Tile", ["x", "s"], ["y"])], [many, many]),
    "a reshape to 2^40": part([node("Reshape", ["x", "s"], ["y"])], [many, many]),
    "a padding to 2^40": part([node("Pad", ["x", "s"], ["y"])], [0, many, 0, many]),
    "a negative padding": part([node("Pad", ["x", "s"], ["y"])], [-100, -100, -100, -100]),
    "a range to 2^40": part(
      [node("Range", ["zero", "s", "one"], ["r"]), node("Cast", ["r"], ["y"], { to: 1 })],
      [2 ** 40],
      [],
    ),
    "a one-hot of 2^30": part(
      [node("Cast", ["x"], ["i"], { to: 7 }), node("OneHot", ["i", "s", "onoff"], ["y"])],
      [2 ** 30],
      [],
    ),
    "a slice from nowhere": part([node("Slice", ["x", "s", "s"], ["y"])], [2 ** 52, -(2 ** 52)]),
    "a gather from nowhere": part([node("Gather", ["x", "s"], ["y"])], [2 ** 40]),
    "a split into 2^30": part([node("Split", ["x", "s"], ["y"], { axis: 0 })], [2 ** 30]),
    "a resize to 2^40": part([node("Resize", ["x", "", "", "s"], ["y"])], [many, many]),
    "a transpose of no order": part([node("Transpose", ["x"], ["y"], { perm: [5, -7] })], [1]),
    "a concatenation that doubles 60 times": part(
      Array.from({ length: 60 }, (_, at) =>
        node("Concat", Array(2).fill(at === 0 ? "x" : `v${at}`), [at === 59 ? "y" : `v${at + 1}`], {
          axis: 0,
        }),
      ),
      [1],
    ),
    "a shape that doubles 60 times": part(
      [
        ...Array.from({ length: 60 }, (_, at) =>
          node("Concat", Array(2).fill(at === 0 ? "s" : `v${at}`), [`v${at + 1}`], { axis: 0 }),
        ),
        node("Expand", ["x", "v60"], ["y"]),
      ],
      [1],
    ),
    "an outer product of products": part(
      Array.from({ length: 8 }, (_, at) =>
        node("Einsum", Array(2).fill(at === 0 ? "x" : `v${at}`), [at === 7 ? "y" : `v${at + 1}`], {
          equation: "ij,kl->ik",
        }),
      ),
      [1],
    ),
    "a loop of 2^60 turns": part(
      [
        node("Loop", ["s", "", "x"], ["y"], {
          body: graph("body", {
            nodes: [node("Identity", ["c"], ["c2"]), node("Add", ["v", "v"], ["v2"])],
            inputs: [
              valueInfo("i", "int64", []),
              valueInfo("c", "bool", []),
              valueInfo("v", "float32", [2, 2]),
            ],
            outputs: [valueInfo("c2", "bool", []), valueInfo("v2", "float32", [2, 2])],
            weights: [],
          }),
        }),
      ],
      [2 ** 52],
      [],
    ),
    "a loop that doubles its value 60 times": part(
      [
        node("Loop", ["s", "", "x"], ["y"], {
          body: graph("body", {
            nodes: [node("Identity", ["c"], ["c2"]), node("Concat", ["v", "v"], ["v2"], { axis: 0 })],
            inputs: [
              valueInfo("i", "int64", []),
              valueInfo("c", "bool", []),
              valueInfo("v", "float32", ["n", 2]),
            ],
            outputs: [valueInfo("c2", "bool", []), valueInfo("v2", "float32", ["m", 2])],
            weights: [],
          }),
        }),
      ],
      [60],
      [],
    ),
    "a range that the input decides": part(
      [
        node("ReduceSum", ["x"], ["sum"], { keepdims: 0 }),
        node("Exp", ["sum"], ["some"]),
        node("Cast", ["some"], ["few"], { to: 7 }),
        node("Add", ["few", "s"], ["many"]),
        node("Range", ["zero", "many", "one"], ["r"]),
        node("Cast", ["r"], ["y"], { to: 1 }),
      ],
      [2 ** 33],
      [],
    ),
    "a quotient that crashes the runtime": part(
      [
        node("Cast", ["x"], ["whole"], { to: 7 }),
        node("Sub", ["whole", "whole"], ["nothing"]),
        node("Sub", ["nothing", "one"], ["minus"]),
        node("Div", ["s", "minus"], ["part"]),
        node("Cast", ["part"], ["y"], { to: 1 }),
      ],
      [-(2 ** 63)],
    ),
    ...Object.fromEntries(
      ["Div", "Mod"].map((operator) => [
        `a ${operator} of whole numbers by zero`,
        part(
          [
            node("Cast", ["x"], ["whole"], { to: 7 }),
            node("Sub", ["whole", "whole"], ["nothing"]),
            node(operator, ["whole", "nothing"], ["part"]),
            node("Cast", ["part"], ["y"], { to: 1 }),
          ],
          [1],
        ),
      ]),
    ),
  };
  return Object.entries(built).map(([name, main]) => ({
    name: `expanding: ${name}`,
    model: modelBytes(model(main)),
    harmless: true,
  }));
}

/** `x` [2, 2], a list of numbers `s` (a single one for an empty shape), to `y`. */
function part(
  nodes: ReturnType<typeof node>[],
  s: readonly number[],
  shape: readonly number[] = [s.length],
): Graph {
  return graph("g", {
    nodes,
    inputs: [valueInfo("x", "float32", [2, 2])],
    outputs: [valueInfo("y", "float32")],
    weights: [
      weight("s", int64(shape, s)),
      weight("zero", int64([], [0])),
      weight("one", int64([], [1])),
      weight("onoff", float32([2], [0, 1])),
    ],
  });
}

/** Functions that call functions. */
function functions(): Case[] {
  const call = (name: string, input: string, output: string) =>
    bytes(field(1, input), field(2, output), field(4, name), field(7, "own"));
  const define = (name: string, ...body: Uint8Array[]) =>
    field(
      25,
      bytes(
        field(1, name),
        field(10, "own"),
        field(4, "a"),
        field(5, "b"),
        ...body.map((each) => field(7, each)),
        field(9, int(2, 17)),
      ),
    );
  const main = (name: string) =>
    bytes(
      file(valueField(11, "x", [1, 4]), field(1, call(name, "x", "y")), valueField(12, "y", [1, 4])),
      field(8, bytes(field(1, "own"), int(2, 1))),
    );
  const relu = bytes(field(1, "a"), field(2, "b"), field(4, "Relu"));
  const doubling = (levels: number) =>
    Array.from({ length: levels }, (_, at) =>
      define(`f${at}`, call(`f${at + 1}`, "a", "m"), call(`f${at + 1}`, "m", "b")),
    );
  const cases: Record<string, Uint8Array> = {
    "a function that calls itself": bytes(main("f"), define("f", call("f", "a", "b"))),
    "two functions that call each other": bytes(
      main("f"),
      define("f", call("g", "a", "b")),
      define("g", call("f", "a", "b")),
    ),
    "functions that call two, 60 deep": bytes(main("f0"), ...doubling(60), define("f60", relu)),
    "a function that reads what nothing makes": bytes(
      main("f"),
      define("f", bytes(field(1, "ghost"), field(2, "b"), field(4, "Relu"))),
    ),
    "a function that makes nothing": bytes(main("f"), define("f")),
    "a function twice": bytes(main("f"), define("f", relu), define("f", call("f", "a", "b"))),
  };
  return Object.entries(cases).map(([name, model]) => ({
    name: `functions: ${name}`,
    model,
    harmless: true,
  }));
}

/** External data in places and sizes that it must not have. */
function elsewhere(): Case[] {
  const size = 2 ** 16;
  const outside = (
    location: string,
    offset?: string,
    length?: string,
    dims: readonly number[] = [size / 4],
  ) => {
    const entry = (key: string, value: string | undefined) =>
      value === undefined ? new Uint8Array() : field(13, bytes(field(1, key), field(2, value)));
    return bytes(
      ...dims.map((each) => int(1, each)),
      int(2, 1),
      field(8, "w"),
      entry("location", location),
      entry("offset", offset),
      entry("length", length),
      int(14, 1),
    );
  };
  const around = (...weights: Uint8Array[]) =>
    file(
      valueField(11, "x", [1]),
      nodeField("Add", ["x", "w"], ["y"]),
      ...weights.map((each) => field(5, each)),
      valueField(12, "y", [size / 4]),
    );
  const named = (name: string) => (each: Uint8Array) => bytes(each, field(8, name));
  const cases: Record<string, Uint8Array> = {
    above: around(outside("../secret.data")),
    "above, on the way down": around(outside("sub/../../secret.data")),
    absolute: around(outside("/etc/hostname")),
    "of Windows": around(outside("C:\\windows\\win.ini")),
    "above, of Windows": around(outside("..\\secret.data")),
    "of a device": around(outside("/dev/zero")),
    nowhere: around(outside("missing.data")),
    "without a name": around(outside("")),
    "with a NUL": around(outside("good.data\0.png")),
    "the folder itself": around(outside(".")),
    "the model itself": around(outside("model.onnx", "0", undefined, [1])),
    "a pipe that nobody fills": around(outside("pipe.data")),
    "behind a link that leads out": around(outside("link.data")),
    negative: around(outside("good.data", "-4")),
    "behind its end": around(outside("good.data", "4")),
    "far behind its end": around(outside("good.data", "9007199254740991")),
    "at no number": around(outside("good.data", "1e3")),
    "at NaN": around(outside("good.data", "NaN")),
    "shorter than it is": around(outside("good.data", "0", "4")),
    "longer than it is": around(outside("good.data", "0", String(2 ** 40))),
    "of a shape without end": around(outside("good.data", "0", undefined, [2 ** 30, 2 ** 30])),
    "of a terabyte": around(outside("good.data", "0", String(2 ** 40), [2 ** 38])),
    "a thousand times the same": around(
      ...Array.from({ length: 1000 }, (_, at) =>
        named(at === 0 ? "w" : `w${at}`)(outside("big.data", "0", undefined, [2 ** 21])),
      ),
    ),
    "a thousand times nearly the same": around(
      ...Array.from({ length: 1000 }, (_, at) =>
        named(at === 0 ? "w" : `w${at}`)(outside("big.data", String(4 * at), undefined, [2 ** 21 - 1024])),
      ),
    ),
  };
  const beside = { "good.data": new Uint8Array(size), "big.data": new Uint8Array(2 ** 23) };
  return Object.entries(cases).map(([name, model]) => ({
    name: `external data ${name}`,
    model,
    beside,
    harmless: /itself|a thousand times the same/.test(name),
  }));
}

/** A sound model with its data beside it, and that data cut off. */
function cutData(): Case[] {
  const { file: pieces, external } = serializeModel(architectureWithBigWeight(), "good.data");
  const data = bytes(...external);
  return [0, 1, data.length - 1].map((length) => ({
    name: `external data cut after ${length}`,
    model: bytes(...pieces),
    beside: { "good.data": data.slice(0, length) },
  }));
}

function architectureWithBigWeight(): Model {
  return model(
    graph("g", {
      nodes: [node("Add", ["x", "w"], ["y"])],
      inputs: [valueInfo("x", "float32", [1])],
      outputs: [valueInfo("y", "float32", [8192])],
      weights: [weight("w", float32([8192], new Float32Array(8192)))],
    }),
  );
}

/** Writes a case's files into a new folder, with a link that leads out of it and a pipe where it asks for data. */
export async function layOut(folder: string, { model, beside = {} }: Case): Promise<void> {
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, "model.onnx"), model);
  for (const [name, content] of Object.entries(beside)) await writeFile(join(folder, name), content);
  if (beside["good.data"] === undefined || process.platform === "win32") return;
  await writeFile(join(folder, "../secret.data"), new Uint8Array(2 ** 16));
  await symlink("../secret.data", join(folder, "link.data"));
  execFileSync("mkfifo", [join(folder, "pipe.data")]);
}

/** All cases. */
export function allCases(): Case[] {
  return [
    ...cut(),
    ...flipped(),
    ...otherKinds(),
    ...greedy(),
    ...rewritten(),
    ...expanding(),
    ...functions(),
    ...elsewhere(),
    ...cutData(),
  ];
}
