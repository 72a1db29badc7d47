/** The name of a model's content: what routes point to, stores file it under and answers are signed with. */
import { sha256Aside } from "../base/sha256.js";
import type { Model } from "./model.js";
import { modelBytes } from "./write.js";

/**
 * The revision of a model: SHA-256 of its file with all weights inside, in hexadecimal. Metadata count, so the same
 * graph with other labels is another revision.
 */
export async function revisionOf(model: Model): Promise<string> {
  return sha256Aside(modelBytes(model));
}
