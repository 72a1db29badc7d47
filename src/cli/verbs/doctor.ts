/** `polyhead doctor`: what is wrong with this machine, or with a store, and how to mend it. */
import { rm } from "node:fs/promises";
import { availableParallelism, freemem, totalmem } from "node:os";
import { join } from "node:path";
import type { Command } from "commander";
import sharp from "sharp";
import { asError, PolyheadError } from "../../base/errors.js";
import { writeFileAtomic } from "../../files/disk.js";
import { graph, model, node, valueInfo } from "../../onnx/model.js";
import { OrtWorker } from "../../runtime/node/ort-worker.js";
import { openModelOn } from "../../runtime/open-model.js";
import { Runtime } from "../../runtime/runtime.js";
import { Store } from "../../store/index.js";
import { float32 } from "../../tensor/tensor.js";
import { decodeImage } from "../../vision/image.js";
import { type Outcome, performs } from "../outcome.js";
import { isRelaunchOff, keepsFreedMemory } from "../relaunch.js";

/** One thing that was looked at. */
interface Finding {
  readonly check: string;
  readonly state: "ok" | "warning" | "failure";
  /** What was found and, where it is not well, how to mend it. */
  readonly found: string;
}

const LEAST_NODE = [20, 19] as const;
const LEAST_MEMORY = 2 ** 29;

/** Adds the verb. */
export function addDoctor(program: Command): void {
  const command = program
    .command("doctor")
    .description("say what is wrong with this machine, and how to mend it")
    .option("--cache <folder>", "folder that must be writable", join(".cache", "polyhead"))
    .option("--store <folder>", "look a store through: every file, model and route")
    .option("--gc", "free what nothing in a sound store needs");
  performs(command, perform);
}

interface Options {
  readonly cache: string;
  readonly store?: string;
  readonly gc?: boolean;
}

async function perform({ cache, store, gc = false }: Options): Promise<Outcome> {
  if (gc && store === undefined) {
    throw new PolyheadError(
      "INVALID_ARGUMENT",
      "--gc needs to know which store to clean: give --store FOLDER.",
    );
  }
  const findings = [
    checkNode(),
    await attempt("ONNX Runtime", "reinstall onnxruntime-node for this platform", checkRuntime),
    await attempt("images", "reinstall sharp for this platform", checkImages),
    await attempt("cache folder", `make ${cache} writable`, () => checkFolder(cache)),
    checkMemory(),
    checkAllocator(),
    ...(store === undefined ? [] : await checkStore(store, gc)),
  ];
  if (findings.some(({ state }) => state === "failure")) process.exitCode = 1;
  return {
    data: { findings },
    text: findings.map(({ check, state, found }) => `${state.padEnd(7)}  ${check}: ${found}`),
  };
}

function checkNode(): Finding {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  const [leastMajor, leastMinor] = LEAST_NODE;
  const isNew = major > leastMajor || (major === leastMajor && minor >= leastMinor);
  const found = `${process.versions.node} on ${process.platform} ${process.arch}`;
  return isNew
    ? { check: "Node", state: "ok", found }
    : { check: "Node", state: "failure", found: `${found}; install ${LEAST_NODE.join(".")} or newer` };
}

async function checkRuntime(): Promise<string> {
  const runtime = await Runtime.open(() => OrtWorker.start());
  try {
    const main = graph("relu", {
      nodes: [node("Relu", ["x"], ["y"])],
      inputs: [valueInfo("x", "float32", [2])],
      outputs: [valueInfo("y", "float32", [2])],
      weights: [],
    });
    const opened = await openModelOn(runtime)(model(main), "all");
    const y = (await opened.run(new Map([["x", float32([2], [-1, 2])]]))).get("y");
    await opened.close();
    if (String(y?.data) !== "0,2") throw new Error(`Relu of -1 and 2 gave ${String(y?.data)}`);
    return `computes, ${availableParallelism()} cores`;
  } finally {
    await runtime.close();
  }
}

async function checkImages(): Promise<string> {
  const png = await sharp({ create: { width: 2, height: 1, channels: 3, background: "#ff0000" } })
    .png()
    .toBuffer();
  const { width, height, rgb } = await decodeImage(new Uint8Array(png));
  if (width !== 2 || height !== 1 || rgb[0] !== 255) throw new Error("a red picture was not read back");
  return `sharp ${sharp.versions.sharp} reads what it writes`;
}

async function checkFolder(folder: string): Promise<string> {
  const probe = join(folder, `probe-${process.pid}`);
  await writeFileAtomic(probe, "");
  await rm(probe);
  return `${folder} is writable`;
}

/** One finding for all that is well, or one for each thing that is not; a damaged store is not cleaned. */
async function checkStore(folder: string, gc: boolean): Promise<Finding[]> {
  const check = "store";
  try {
    const { findings, models, blobs, bytes, garbage } = await (
      await Store.open(folder, { readOnly: true })
    ).verify();
    if (findings.length > 0)
      return findings.map(({ message }) => ({ check, state: "failure", found: message }));
    const found = `${models} models, ${blobs} files of ${mebibytes(bytes)} in all, ${mebibytes(garbage)} that nothing needs`;
    const sound: Finding = { check, state: "ok", found };
    if (!gc) return [sound];
    const freed = await (await Store.open(folder)).gc();
    const count = freed.blobs + freed.unfinished;
    return [
      sound,
      { check: "garbage", state: "ok", found: `${count} files of ${mebibytes(freed.bytes)} removed` },
    ];
  } catch (thrown) {
    return [{ check, state: "failure", found: asError(thrown).message }];
  }
}

function mebibytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}

function checkMemory(): Finding {
  const gibibytes = (bytes: number) => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
  const found = `${gibibytes(freemem())} of ${gibibytes(totalmem())} free`;
  return freemem() >= LEAST_MEMORY
    ? { check: "memory", state: "ok", found }
    : { check: "memory", state: "warning", found: `${found}; models may not fit, close other programs` };
}

/** Only a start of one's own, or a wish, leaves glibc as it is. */
function checkAllocator(): Finding {
  const check = "allocator";
  if (!keepsFreedMemory()) return { check, state: "ok", found: "gives memory back" };
  const advice = "start a program that opens engines with MALLOC_MMAP_THRESHOLD_=131072";
  return isRelaunchOff()
    ? {
        check,
        state: "warning",
        found: `with glibc and POLYHEAD_RELAUNCH=0, memory of released models stays with the process; unset that, and ${advice}`,
      }
    : { check, state: "ok", found: `glibc; demo and teach make it give memory back; ${advice}` };
}

async function attempt(check: string, mend: string, work: () => Promise<string>): Promise<Finding> {
  try {
    return { check, state: "ok", found: await work() };
  } catch (thrown) {
    return { check, state: "failure", found: `${asError(thrown).message}; ${mend}` };
  }
}
