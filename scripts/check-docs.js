// Holds the documentation to the code: every source opens with a block comment, every exported declaration has
// a JSDoc comment, docs/errors.md is what its generator writes, and relative links in Markdown lead to files.
// Usage: node scripts/check-docs.js [project folder]
import { existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { errorPage } from "./error-page.js";
import { filesBelow, lineAt, report, sourceFiles } from "./source-files.js";

const root = process.argv[2] ?? fileURLToPath(new URL("..", import.meta.url));
report("check-docs", [
  ...sourceFiles(root).flatMap(undocumented),
  ...(await staleErrorPage()),
  ...filesBelow(root, ".", ".md").flatMap(deadLinks),
]);

function undocumented(/** @type {string} */ file) {
  const text = readFileSync(join(root, file), "utf8");
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.Latest, true);
  const header = ts.getLeadingCommentRanges(text, ts.getShebang(text)?.length ?? 0)?.[0];
  const opens = header?.kind === ts.SyntaxKind.MultiLineCommentTrivia;
  const offences = opens ? [] : [`${file}:1 does not open with a block comment about the file`];

  // The file's own comment does not document the declaration that happens to follow it.
  const isDocumented = (/** @type {ts.Node} */ node) =>
    ts.getJSDocCommentsAndTags(node).some((doc) => ts.isJSDoc(doc) && doc.pos !== header?.pos);
  const documented = new Set();
  for (const { name, node } of exportedDeclarations(source)) {
    if (documented.has(name)) continue; // a later overload
    if (isDocumented(node)) documented.add(name);
    else
      offences.push(`${file}:${lineAt(text, node.getStart(source))} exports ${name} without a JSDoc comment`);
  }
  return offences;
}

/** Declarations that the file exports itself, by keyword or by an export list; no re-exports. */
function* exportedDeclarations(/** @type {ts.SourceFile} */ source) {
  const listed = new Set(
    source.statements.flatMap((node) =>
      ts.isExportDeclaration(node) &&
      !node.moduleSpecifier &&
      node.exportClause &&
      ts.isNamedExports(node.exportClause)
        ? node.exportClause.elements.map((each) => (each.propertyName ?? each.name).text)
        : [],
    ),
  );
  for (const node of source.statements) {
    const isExported =
      ts.canHaveModifiers(node) &&
      ts.getModifiers(node)?.some((modifier) => modifier.kind === ts.SyntaxKind.ExportKeyword);
    for (const name of declaredNames(node)) {
      if (isExported || listed.has(name)) yield { name, node };
    }
  }
}

function declaredNames(/** @type {ts.Statement} */ node) {
  if (ts.isVariableStatement(node))
    return node.declarationList.declarations.map((each) => each.name.getText());
  if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) return [];
  if (ts.isExportAssignment(node)) return ["default"];
  const isDeclaration =
    ts.isClassDeclaration(node) ||
    ts.isFunctionDeclaration(node) ||
    ts.isInterfaceDeclaration(node) ||
    ts.isTypeAliasDeclaration(node) ||
    ts.isEnumDeclaration(node) ||
    ts.isModuleDeclaration(node);
  return isDeclaration ? [node.name?.text ?? "default"] : [];
}

async function staleErrorPage() {
  const path = join(root, "docs/errors.md");
  const fresh = existsSync(path) && readFileSync(path, "utf8") === (await errorPage(root));
  return fresh
    ? []
    : ["docs/errors.md:1 differs from src/base/errors.ts: run node scripts/generate-errors.js"];
}

function deadLinks(/** @type {string} */ file) {
  const text = readFileSync(join(root, file), "utf8");
  const prose = text.replace(/^(```|~~~)[\s\S]*?^\1/gm, (block) => block.replace(/[^\n]/g, " "));
  return [...prose.matchAll(/\]\(<?([^)\s>#]+)[^)]*\)|^\[[^\]]+\]:\s*<?([^\s>#]+)/gm)].flatMap((match) => {
    const target = match[1] ?? match[2] ?? "";
    const isRelative = !/^[a-z][a-z+.-]*:/i.test(target);
    if (!isRelative || existsSync(join(root, dirname(file), decodeURI(target)))) return [];
    return [`${file}:${lineAt(text, match.index)} links to ${target}, which does not exist`];
  });
}
