/**
 * Trials: models that nobody has run yet are run in a process of their own. A model can make ONNX Runtime crash, compute
 * without an end, or ask for more memory than there is, and nothing inside a process can stop it from taking that
 * process down. Models reach it as files in a temporary folder, so that their size has no limit.
 */
import { type ChildProcess, fork } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { PolyheadError } from "../../base/errors.js";
import { writeFileAtomic } from "../../files/disk.js";
import { runDemand } from "../../onnx/memory.js";
import type { Model } from "../../onnx/model.js";
import type { OpenedModel, OpenModel, Optimisation } from "../../onnx/runner.js";
import { serializeModel } from "../../onnx/write.js";
import { type PlainResult, revived, type Task } from "../../runtime/node/protocol.js";
import { runModel } from "../../runtime/open-model.js";
import type { Allowance, TrialRequest, TrialResponse } from "./protocol.js";

/** The process's compiled file: beside this one, or in the build when this one runs from its source. */
const PROCESS = fileURLToPath(
  new URL(
    import.meta.url.endsWith(".ts") ? "../../../dist/cli/trial/trial-process.js" : "./trial-process.js",
    import.meta.url,
  ),
);

/** What anything may take, and what it may take beside that for its size; all far above what real models take. */
const ALLOWED = {
  seconds: 3,
  secondsPerByte: 1e-8,
  secondsPerNode: 1e-4,
  secondsPerFlop: 1e-9,
  bytes: 768 * 2 ** 20,
  /** Models are mapped into memory, and the runtime keeps a copy of weights in the order in which it reads them. */
  bytesPerByte: 3,
} as const;

/**
 * What `use` does with models that it opens, each in the same process of its own, which ends afterwards. A crash of that
 * process fails the load or the run that was under way with LOAD_FAILED or RUN_FAILED, and one that takes far more
 * processor time or memory than the model explains with LIMIT_EXCEEDED.
 */
export async function inTrial<Result>(use: (open: OpenModel) => Promise<Result>): Promise<Result> {
  const trial = new Trial(await mkdtemp(join(tmpdir(), "polyhead-trial-")));
  try {
    return await use((model, optimisation) => trial.open(model, optimisation));
  } finally {
    await trial.end();
  }
}

/** A model as a file. */
interface Stored {
  readonly path: string;
  readonly bytes: number;
}

interface Pending {
  readonly task: Task;
  readonly resolve: (result: PlainResult | undefined) => void;
  readonly reject: (reason: PolyheadError) => void;
}

class Trial {
  readonly #folder: string;
  readonly #stored = new Map<Model, Promise<Stored>>();
  readonly #pending = new Map<number, Pending>();
  #child: ChildProcess | undefined;
  #ended: string | undefined;
  #bytes = 0;
  #next = 1;

  constructor(folder: string) {
    this.#folder = folder;
  }

  async open(model: Model, optimisation: Optimisation): Promise<OpenedModel> {
    const stored = this.#stored.get(model) ?? this.#store(model);
    this.#stored.set(model, stored);
    const { path, bytes } = await stored;
    const session = this.#next++;
    const size = ALLOWED.secondsPerByte * bytes + ALLOWED.secondsPerNode * model.graph.node.length;
    await this.#ask({ kind: "create", session, model: path, options: { optimisation } }, size);
    return {
      run: (inputs) => {
        const { flops } = runDemand(model, new Map([...inputs].map(([name, { shape }]) => [name, shape])));
        return runModel(model, session, inputs, async (program, values) => {
          const task = { kind: "run", program, values, taken: [] } as const;
          const result = await this.#ask(task, size + ALLOWED.secondsPerFlop * flops);
          if (!result) throw new PolyheadError("INTERNAL", "A trial answered a run without a result.", {});
          return { ...result, failures: new Map(result.failures.map(([name, e]) => [name, revived(e)])) };
        });
      },
      close: async () => {
        if (this.#ended === undefined) await this.#ask({ kind: "release", number: session }, 0);
      },
    };
  }

  async end(): Promise<void> {
    const child = this.#child;
    if (child?.connected) {
      const gone = new Promise((resolve) => child.once("exit", resolve));
      child.disconnect();
      await gone;
    }
    await rm(this.#folder, { recursive: true, force: true });
  }

  async #store(model: Model): Promise<Stored> {
    const name = `${this.#stored.size}`;
    const { file, external } = serializeModel(model, `${name}.data`);
    const path = join(this.#folder, `${name}.onnx`);
    const data =
      external.length > 0 ? await writeFileAtomic(join(this.#folder, `${name}.data`), external) : 0;
    const bytes = data + (await writeFileAtomic(path, file));
    this.#bytes += bytes;
    return { path, bytes };
  }

  /** @param seconds that the task may take because of its size */
  #ask(task: Task, seconds: number): Promise<PlainResult | undefined> {
    this.#child ??= this.#start();
    const child = this.#child;
    const id = this.#next++;
    const allowance: Allowance = {
      seconds: ALLOWED.seconds + seconds,
      bytes: ALLOWED.bytes + ALLOWED.bytesPerByte * this.#bytes,
    };
    return new Promise((resolve, reject) => {
      if (this.#ended !== undefined) return reject(crashed(task, this.#ended));
      this.#pending.set(id, { task, resolve, reject });
      // What cannot be sent is answered by the end of the process.
      child.send({ id, task, allowance } satisfies TrialRequest, () => {});
    });
  }

  #start(): ChildProcess {
    const child = fork(PROCESS, [this.#folder], {
      serialization: "advanced",
      stdio: ["ignore", "ignore", "ignore", "ipc"],
      execArgv: [],
    });
    child.on("message", (response: TrialResponse) => {
      const pending = this.#pending.get(response.id);
      this.#pending.delete(response.id);
      if ("error" in response) pending?.reject(revived(response.error));
      else pending?.resolve(response.result);
    });
    const die = (how: string) => {
      this.#ended ??= how;
      for (const { task, reject } of this.#pending.values()) reject(crashed(task, this.#ended));
      this.#pending.clear();
    };
    child.on("error", ({ message }) => die(message));
    child.on("exit", (status, signal) => die(signal ?? `exit status ${status}`));
    return child;
  }
}

function crashed({ kind }: Task, how: string): PolyheadError {
  return new PolyheadError(
    kind === "create" ? "LOAD_FAILED" : "RUN_FAILED",
    `ONNX Runtime crashed (${how}) while it ${kind === "create" ? "loaded" : "ran"} the model, in a process of its own. The model cannot be used.`,
    { how },
  );
}
