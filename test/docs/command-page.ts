/** What docs/command.md says: its sections, their examples, and the shape of the documents that they print. */
import { readFile } from "node:fs/promises";

/** A command of the page, as words after `polyhead`, and the document that it prints with `--json`. */
export interface Example {
  readonly words: readonly string[];
  readonly document: unknown;
}

/** A part of the page under one heading. */
export interface Section {
  readonly title: string;
  readonly text: string;
  readonly examples: readonly Example[];
}

/** The page's sections; what stands before the first heading is called `polyhead`. */
export async function commandPage(): Promise<Section[]> {
  const page = await readFile(new URL("../../docs/command.md", import.meta.url), "utf8");
  return page.split(/^## /m).map((text, place) => {
    const blocks = text.matchAll(/```sh\npolyhead (.*)\n```\n```json\n([\s\S]*?)```/g);
    const examples = [...blocks].map(([, words = "", json = ""]) => ({
      words: words.split(" ").filter((word) => word !== "--json"),
      document: JSON.parse(json),
    }));
    return { title: place === 0 ? "polyhead" : (text.split("\n")[0] ?? ""), text, examples };
  });
}

/**
 * A document's shape to compare: keys and kinds of values. Entries of lists are alike. Against a documented object
 * with a key in angle brackets, any keys will do.
 */
export function shapeLike(documented: unknown, actual: unknown): unknown {
  if (Array.isArray(documented) && Array.isArray(actual)) {
    const [like] = documented;
    return like === undefined ? [] : documented.map((each, at) => shapeLike(each, actual[at] ?? actual[0]));
  }
  if (isRecord(documented) && isRecord(actual)) {
    if (Object.keys(documented).some((key) => key.startsWith("<"))) return "any keys";
    return Object.fromEntries(
      Object.keys(actual).map((key) => [key, shapeLike(documented[key], actual[key])]),
    );
  }
  return actual === null ? "null" : typeof actual;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
