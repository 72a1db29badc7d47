/** An OpenAPI document as one HTML page for reading: no scripts, nothing loaded from anywhere. */

const STYLE = `
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #8888; }
details { border: 1px solid #8886; border-radius: 6px; margin: .5rem 0; padding: .4rem .8rem; }
summary { cursor: pointer; }
code, pre { font: 14px/1.4 ui-monospace, monospace; }
pre { overflow-x: auto; background: #8882; padding: .6rem; border-radius: 4px; }
.method { display: inline-block; min-width: 4.5rem; font-weight: 700; }
.what { color: #888; }
`;
const METHODS = ["get", "post", "put", "patch", "delete"];

/**
 * The page.
 * @param document in OpenAPI 3
 */
export function documentationPage(document: object): string {
  const info = part(document, "info");
  const operations = [...operationsOf(document)];
  const tags = list(part(document, "tags"));
  const sections = tags.map((tag) => {
    const name = text(part(tag, "name"));
    const own = operations.filter(({ operation }) => list(part(operation, "tags")).includes(name));
    if (own.length === 0) return "";
    const what = escapeHtml(text(part(tag, "description")));
    return `<h2>${escapeHtml(name)}</h2><p class="what">${what}</p>${own.map(render).join("")}`;
  });
  const title = escapeHtml(`${text(part(info, "title"))} ${text(part(info, "version"))}`);
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${title}</title><style>${STYLE}</style></head>
<body><h1>${title}</h1><p>${escapeHtml(text(part(info, "description")))}</p>
<p>For tools: <a href="/openapi.json">openapi.json</a></p>
${sections.join("\n")}
</body></html>
`;
}

interface Operation {
  readonly method: string;
  readonly path: string;
  readonly operation: unknown;
}

function* operationsOf(document: object): Generator<Operation> {
  for (const [path, item] of entries(part(document, "paths"))) {
    for (const [method, operation] of entries(item)) {
      if (METHODS.includes(method)) yield { method, path, operation };
    }
  }
}

function render({ method, path, operation }: Operation): string {
  const parameters = list(part(operation, "parameters")).map((parameter) => {
    const name = escapeHtml(text(part(parameter, "name")));
    const schema = part(parameter, "schema");
    const about = [
      text(part(parameter, "in")),
      text(part(schema, "type")),
      text(part(parameter, "description")),
    ];
    return `<li><code>${name}</code> <span class="what">${escapeHtml(about.filter(Boolean).join(", "))}</span></li>`;
  });
  const security = list(part(operation, "security")).length > 0 ? "" : " (no token needed)";
  const responses = entries(part(operation, "responses")).filter(([status]) => status.startsWith("2"));
  return `<details><summary><span class="method">${method.toUpperCase()}</span><code>${escapeHtml(path)}</code>
<span class="what">${escapeHtml(text(part(operation, "summary")))}${security}</span></summary>
<p>${escapeHtml(text(part(operation, "description")))}</p>
${parameters.length > 0 ? `<h4>Parameters</h4><ul>${parameters.join("")}</ul>` : ""}
${contents("Request", part(operation, "requestBody"))}
${responses.map(([status, response]) => contents(`Answer ${status}`, response)).join("")}
</details>`;
}

function contents(title: string, holder: unknown): string {
  return entries(part(holder, "content"))
    .map(([type, content]) => {
      const schema = JSON.stringify(part(content, "schema"), undefined, 2) ?? "";
      return `<h4>${escapeHtml(title)}: ${escapeHtml(type)}</h4><pre>${escapeHtml(schema)}</pre>`;
    })
    .join("");
}

function part(value: unknown, key: string): unknown {
  return typeof value === "object" && value !== null ? Reflect.get(value, key) : undefined;
}

function entries(value: unknown): [string, unknown][] {
  return typeof value === "object" && value !== null ? Object.entries(value) : [];
}

function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function escapeHtml(value: string): string {
  return value.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
