/** A process of its own that answers messages, one at a time. */
import { spawn } from "node:child_process";
import { once } from "node:events";

/**
 * The parent's side.
 * @template Message what it asks
 * @template Answer what the child answers
 */
export class Child {
  #process;
  #lost;

  /**
   * @param {readonly string[]} args of Node
   * @param {{ env?: NodeJS.ProcessEnv, output?: "pipe" | "ignore" }} [options]
   */
  constructor(args, { env = {}, output = "ignore" } = {}) {
    this.#process = spawn(process.execPath, args, {
      env: { ...process.env, ...env },
      stdio: ["ignore", output, "inherit", "ipc"],
    });
    this.#lost = once(this.#process, "exit").then(([code, signal]) => {
      throw new Error(`The process of ${args.join(" ")} ended with ${signal ?? code}.`);
    });
    this.#lost.catch(() => {});
  }

  /** Its first line on standard output. */
  async line() {
    let text = "";
    const { stdout } = this.#process;
    if (!stdout) throw new Error("The process has no output.");
    stdout.setEncoding("utf8");
    while (!text.includes("\n")) text += (await Promise.race([once(stdout, "data"), this.#lost]))[0];
    stdout.resume();
    return text.slice(0, text.indexOf("\n"));
  }

  /**
   * @param {Message & object} message
   * @returns {Promise<Answer>}
   */
  async ask(message) {
    this.#process.send(message);
    const [answer] = await Promise.race([once(this.#process, "message"), this.#lost]);
    if (answer.error) throw new Error(answer.error);
    return answer;
  }

  /** @param {NodeJS.Signals} [signal] */
  async close(signal = "SIGKILL") {
    this.#process.kill(signal);
    await this.#lost.catch(() => {});
  }
}

/**
 * The child's side.
 * @template Message what the parent asks
 * @param {(message: Message) => unknown} handle
 */
export function answerParent(handle) {
  process.on("message", async (message) => {
    try {
      process.send?.((await handle(/** @type {Message} */ (message))) ?? {});
    } catch (thrown) {
      process.send?.({ error: String(thrown instanceof Error ? thrown.stack : thrown) });
    }
  });
  process.once("disconnect", () => process.exit());
}
