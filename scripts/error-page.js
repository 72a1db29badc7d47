// The text of docs/errors.md, made from the catalogue in src/base/errors.ts.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import ts from "typescript";

/** The page for the project in the folder `root`. */
export async function errorPage(/** @type {string} */ root) {
  const catalogue = await readCatalogue(join(root, "src/base/errors.ts"));
  const rows = Object.entries(catalogue).map(
    ([code, { http, grpc, exit, meaning }]) =>
      `| \`${code}\` | ${meaning} | ${http} | \`${grpc}\` | ${exit} |`,
  );
  return `<!-- Generated from src/base/errors.ts by scripts/generate-errors.js. Do not edit. -->
# Errors

Every failure that a caller can cause or must handle is a \`PolyheadError\` with one of these codes. Its message
says what failed, what came, what was expected and how to mend it; \`details\` holds the same facts for programs.
With \`--json\` the command prints the error as \`{ code, message, details }\`.

| code | meaning | HTTP | gRPC | exit status |
|---|---|---|---|---|
${rows.join("\n")}
`;
}

/** The catalogue, read without a build: the file is translated in memory and imports nothing. */
async function readCatalogue(/** @type {string} */ path) {
  const { outputText } = ts.transpileModule(readFileSync(path, "utf8"), {
    compilerOptions: { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 },
  });
  const module = await import(`data:text/javascript,${encodeURIComponent(outputText)}`);
  return /** @type {typeof import("../src/base/errors.js").ERROR_CATALOGUE} */ (module.ERROR_CATALOGUE);
}
