/** Processes that work when they are told to: one line in, the work, one line out. PyTorch's are such. */
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

const PYTHONS = ["python3", "/usr/bin/python3"];

/** A process that does something for each line, and answers with a line. */
export class Stepper {
  #child;
  #lines;
  #errors = "";

  /**
   * @param {string} program
   * @param {readonly string[]} words
   */
  constructor(program, words) {
    this.#child = spawn(program, words, { stdio: "pipe" });
    this.#child.stderr.setEncoding("utf8").on("data", (text) => {
      this.#errors += text;
    });
    this.#child.on("error", (error) => {
      this.#errors += error.message;
    });
    this.#child.stdin.on("error", () => {});
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  /** @returns {Promise<string>} its next line */
  async answer() {
    const { value, done } = await this.#lines.next();
    if (!done) return value;
    throw new Error(this.#errors.trim().split("\n").at(-1) || "it ended");
  }

  /** @param {string} [line] what to do */
  step(line = "step") {
    this.#child.stdin.write(`${line}\n`);
    return this.answer();
  }

  close() {
    this.#child.kill();
  }
}

/**
 * A Python script in the first interpreter in which it starts; and its first line.
 * @param {readonly string[]} words the script and its arguments
 */
export async function startPython(words) {
  let reason;
  for (const python of PYTHONS) {
    const stepper = new Stepper(python, ["-W", "ignore", ...words]);
    try {
      return { stepper, first: await stepper.answer() };
    } catch (thrown) {
      reason = thrown;
      stepper.close();
    }
  }
  throw reason;
}
