/** `polyhead serve`: a store's routes behind HTTP and gRPC, until a signal ends it. */
import type { Command } from "commander";
import { type Outcome, performs } from "../outcome.js";
import { parseNumbers, readServeConfig } from "../serve/config.js";
import { type Serving, startServing } from "../serve/start-serving.js";

const SIGNALS = ["SIGTERM", "SIGINT"] as const;

/** Adds the verb. */
export function addServe(program: Command): void {
  const each = (value: string, before: readonly string[] = []) => [...before, value];
  const numbers = (value: string, before: Readonly<Record<string, number>> = {}) => ({
    ...before,
    ...parseNumbers(value),
  });
  const command = program
    .command("serve")
    .description("serve the routes of a store over HTTP and gRPC (Open Inference Protocol)")
    .option("--config <file>", "JSON file with settings; flags and POLYHEAD_ variables go before it")
    .option("--store <folder>", "the store; by default one in your cache with the demo's models")
    .option("--http <address>", "HOST:PORT for HTTP, 127.0.0.1:8000 by default; port 0 takes any free one")
    .option("--grpc <address>", "HOST:PORT for gRPC, 127.0.0.1:8001 by default; port 0 takes any free one")
    .option("--workers <count>", "batches that run side by side; 2 by default")
    .option("--threads <count>", "threads of a worker; the cores divided among the workers by default")
    .option("--cache-bytes <bytes>", "features to keep; 256 MiB by default")
    .option("--batch-rows <count>", "rows in one batch at most; 32 by default")
    .option("--weights <name=number>", "a route's share while requests wait; can be repeated", numbers)
    .option("--watch <folder>", "a folder whose model files go live under their names when they prove valid")
    .option("--queue-limit <count>", "requests that may wait; 1024 by default")
    .option("--queue-milliseconds <time>", "how long a request may be expected to wait; 5000 by default")
    .option("--notice-milliseconds <time>", "how long to go on, not ready, after a signal; 1000 by default")
    .option("--grace-milliseconds <time>", "how long requests may take then; 30000 by default")
    .option("--tokens-file <file>", "JSON list of tokens with name, secret and scopes")
    .option("--allow-open", "let everybody who reaches the addresses do everything")
    .option("--origins <origin>", "a web page's origin that may call the server; can be repeated", each)
    .option("--tls-cert <file>", "PEM file of the certificate")
    .option("--tls-key <file>", "PEM file of its key")
    .option("--limits <name=number>", "a limit on what clients send; can be repeated", numbers)
    .option("--log-level <level>", "debug, info, warn, error or silent; info by default");
  performs(command, perform);
}

async function perform({ json: _, ...flags }: Readonly<Record<string, unknown>>): Promise<Outcome> {
  const serving = await startServing(await readServeConfig(flags, process.env));
  endBySignal(serving);
  const { http, grpc, store, routes } = serving;
  return {
    data: { http, grpc, pid: process.pid, store, routes },
    text: [`serving ${routes} routes of ${store} at ${http} and, over gRPC, at ${grpc}`],
  };
}

/**
 * The first signal lets everything under way be answered; the second one ends the process as if there were no handler.
 * A run that is stuck cannot be ended by itself, and exit would wait for it.
 */
function endBySignal(serving: Serving): void {
  let isDraining = false;
  const end = (signal: NodeJS.Signals) => {
    if (isDraining) {
      for (const each of SIGNALS) process.removeAllListeners(each);
      process.kill(process.pid, signal);
      return;
    }
    isDraining = true;
    setTimeout(() => {
      process.stderr.write("polyhead: work is stuck; the server is killed\n");
      process.kill(process.pid, "SIGKILL");
    }, serving.patience).unref();
    serving.drain().then(
      () => process.exit(0),
      (thrown: unknown) => {
        process.stderr.write(`polyhead: the server did not end as it should: ${String(thrown)}\n`);
        process.exit(1);
      },
    );
  };
  for (const signal of SIGNALS) process.on(signal, end);
}
