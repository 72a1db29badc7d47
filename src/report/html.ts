/**
 * Pages of HTML that need nothing from outside: text is escaped, styles stand in the page, pictures are data. The page's
 * own policy forbids scripts and loading, so that it can be passed on and opened anywhere. Light and dark follow
 * the reader's system.
 */

/** HTML that is safe to put into a page. */
export class Html {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

/** What may stand in a template: text is escaped, HTML is taken as it is, lists are joined, nothing is nothing. */
export type Content = string | number | Html | readonly Content[] | undefined;

/** HTML from a template whose values are escaped. */
export function html(parts: TemplateStringsArray, ...values: readonly Content[]): Html {
  return new Html(parts.map((part, at) => (at === 0 ? part : render(values[at - 1]) + part)).join(""));
}

/** Text with `&`, `<`, `>` and quotes escaped; control characters that HTML does not allow become `�`. */
export function escaped(text: string): string {
  return text
    .replace(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, "\ufffd")
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;")
    .replaceAll("'", "&#39;");
}

/** A whole page. */
export function page(title: string, body: Html): string {
  return html`<!DOCTYPE html>
<html lang="en" xmlns="http://www.w3.org/1999/xhtml">
<head>
<meta charset="utf-8" />
<meta name="viewport" content="width=device-width, initial-scale=1" />
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'" />
<title>${title}</title>
<style>${new Html(STYLE)}</style>
</head>
<body>
<main>
${body}
</main>
</body>
</html>
`.text;
}

function render(value: Content): string {
  if (value === undefined) return "";
  if (value instanceof Html) return value.text;
  if (typeof value === "object") return value.map(render).join("");
  return escaped(String(value));
}

const STYLE = `
:root {
  color-scheme: light dark;
  --paper: #fbfaf8; --card: #ffffff; --ink: #1d2330; --quiet: #667085; --line: #e4e2dc; --mark: #2563a8;
  --good: #1f7a4d; --bad: #b3372f; --heat: 37, 99, 168;
  --plot-ink: #475467; --plot-grid: #e9e7e1; --plot-1: #2563a8; --plot-2: #d9681d; --plot-3: #1f8a5b; --plot-4: #8e4ec6;
  --plot-5: #b3372f;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171d; --card: #1c2028; --ink: #e6e8ec; --quiet: #98a2b3; --line: #2e3440; --mark: #7cb2f2;
    --good: #5fc794; --bad: #f08a80; --heat: 96, 160, 235;
    --plot-ink: #aab3c2; --plot-grid: #2b313c; --plot-1: #7cb2f2; --plot-2: #f5a066; --plot-3: #67cf9d; --plot-4: #c29bf0;
    --plot-5: #f08a80;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 24px 72px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 40px 0 12px; }
p { margin: 0 0 8px; }
.quiet { color: var(--quiet); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 12px; margin: 24px 0 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px 18px; }
.tile b { display: block; font-size: 26px; line-height: 1.25; font-weight: 650; font-variant-numeric: tabular-nums; }
.tile span { color: var(--quiet); font-size: 13px; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(480px, 100%), 1fr)); gap: 12px; }
.plots svg { width: 100%; height: auto; display: block; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
th { text-align: left; font-weight: 600; color: var(--quiet); font-size: 13px; }
th, td { padding: 5px 12px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child > td, tr:last-child > th { border-bottom: 0; }
td.number, th.number { text-align: right; }
.full { width: 100%; }
.bar { display: inline-block; width: 110px; height: 7px; border-radius: 4px; background: var(--line); vertical-align: 2px; }
.bar i { display: block; height: 100%; border-radius: 4px; background: var(--mark); }
.confusion td, .confusion th { border: 0; padding: 2px; }
.confusion td { width: 40px; height: 34px; text-align: center; vertical-align: middle; border-radius: 5px; }
.confusion td.none { color: var(--quiet); opacity: 0.45; }
.confusion th.row { padding-right: 10px; text-align: right; vertical-align: middle; color: var(--ink); font-weight: 500; max-width: 220px; }
.confusion th.column { height: 110px; vertical-align: bottom; color: var(--ink); font-weight: 500; }
.confusion th.column div { writing-mode: vertical-rl; transform: rotate(180deg); margin: 0 auto; max-height: 150px; overflow: hidden; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: 12px; }
figure.card { margin: 0; padding: 0; overflow: hidden; }
figure img { width: 100%; aspect-ratio: 4 / 3; object-fit: contain; display: block; background: var(--line); }
figcaption { padding: 8px 12px 10px; font-size: 13px; line-height: 1.4; overflow-wrap: anywhere; }
figcaption .is { color: var(--good); } figcaption .called { color: var(--bad); }
code { font: 13px/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
ul { margin: 0; padding-left: 18px; }
@media print { body { background: #fff; } .card { break-inside: avoid; } }
`;
