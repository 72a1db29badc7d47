/**
 * The report of a training as one page of HTML: what came out, how it went, what is confused with what, the worst
 * mistakes as pictures, the settings and the data. A function of plain values; it measures nothing.
 */

import type { DetectionQuality } from "../vision/average-precision.js";
import type { ClassificationQuality } from "../vision/classification-quality.js";
import { type Content, Html, html, page } from "./html.js";
import { type Plot, plotSvg } from "./plot.js";

/** What the report says. */
export interface TrainingReport {
  readonly title: string;
  /** One line below the title: the model, the way, when. */
  readonly subtitle?: string;
  /** The most important numbers first. */
  readonly figures: readonly Figure[];
  readonly curves: readonly Plot[];
  /** Names of the classes. */
  readonly labels: readonly string[];
  readonly classification?: ClassificationQuality;
  readonly detection?: DetectionQuality;
  readonly pictures?: readonly Picture[];
  /** Whatever the result depends on, and versions; JSON-serialisable. */
  readonly settings: Readonly<Record<string, unknown>>;
  readonly data: ReportedData;
  /** What the reader should know. */
  readonly notes?: readonly string[];
}

/** A number that is shown large. */
export interface Figure {
  readonly label: string;
  readonly value: string;
  readonly note?: string;
}

/** A mistake, shown. */
export interface Picture {
  /** A `data:image/...;base64,` URI. */
  readonly source: string;
  readonly id: string;
  /** What it is, and what it was called. */
  readonly expected: string;
  readonly predicted: string;
  /** From 0 to 1. */
  readonly confidence?: number;
}

/** What was learned from. */
export interface ReportedData {
  readonly name: string;
  readonly digest: string;
  readonly training: number;
  readonly validation: number;
  /** Examples or objects of each class, by number. */
  readonly counts: readonly number[];
  /** What was left out. */
  readonly problems: readonly { readonly id: string; readonly problem: string }[];
}

/** Matrices of more classes become a list of the most frequent confusions. */
const LARGEST_MATRIX = 24;
const MOST_CONFUSIONS = 20;
const MOST_PROBLEMS = 50;

/** The page. */
export function trainingReport(report: TrainingReport): string {
  const { title, subtitle, figures, curves, labels, classification, detection, pictures = [] } = report;
  return page(
    title,
    html`<header>
<h1>${title}</h1>
${subtitle === undefined ? undefined : html`<p class="quiet">${subtitle}</p>`}
<div class="tiles">${figures.map(tile)}</div>
</header>
${section("Notes", report.notes?.length ? html`<div class="card"><ul>${report.notes.map((note) => html`<li>${note}</li>`)}</ul></div>` : undefined)}
${section("How it went", curves.length > 0 ? html`<div class="plots">${curves.map(card)}</div>` : undefined)}
${section("By class", classes(labels, classification, detection, report.data.counts))}
${section("What is called what", classification && confusions(labels, classification.confusion))}
${section("The surest mistakes", pictures.length > 0 ? html`<div class="pictures">${pictures.map(picture)}</div>` : undefined)}
${section("Settings", settings(report.settings))}
${section("Data", data(report.data, labels.length))}`,
  );
}

function section(title: string, content: Content): Html | undefined {
  return content === undefined ? undefined : html`<section><h2>${title}</h2>${content}</section>`;
}

function tile({ label, value, note }: Figure): Html {
  return html`<div class="card tile"><span>${label}</span><b>${value}</b>${note === undefined ? undefined : html`<span>${note}</span>`}</div>`;
}

function card(plot: Plot): Html {
  return html`<div class="card">${new Html(plotSvg(plot))}</div>`;
}

function classes(
  labels: readonly string[],
  classification: ClassificationQuality | undefined,
  detection: DetectionQuality | undefined,
  counts: readonly number[],
): Html | undefined {
  const bar = (share: number | undefined) =>
    share === undefined
      ? html`<td class="number quiet">-</td><td></td>`
      : html`<td class="number">${percent(share)}</td><td><span class="bar"><i style="width: ${Math.round(100 * share)}%"></i></span></td>`;
  const table = (head: Content, rows: Content) =>
    html`<div class="card scroll"><table class="full"><thead><tr>${head}</tr></thead><tbody>${rows}</tbody></table></div>`;
  if (classification) {
    const rows = classification.perClass.map(
      ({ recall, precision, f1, support }, at) =>
        html`<tr><td>${labels[at] ?? `class ${at}`}</td>${bar(recall)}<td class="number">${percent(precision)}</td><td class="number">${f1.toFixed(3)}</td><td class="number">${support}</td><td class="number">${counts[at] ?? 0}</td></tr>`,
    );
    return table(
      html`<th>class</th><th class="number">found</th><th></th><th class="number">right when named</th><th class="number">F1</th><th class="number">judged on</th><th class="number">examples</th>`,
      rows,
    );
  }
  if (!detection) return undefined;
  const rows = detection.perClass.map(
    ({ ap, ap50, ar100, objects }, at) =>
      html`<tr><td>${labels[at] ?? `class ${at}`}</td>${bar(ap)}<td class="number">${orDash(ap50)}</td><td class="number">${orDash(ar100)}</td><td class="number">${objects}</td><td class="number">${counts[at] ?? 0}</td></tr>`,
  );
  return table(
    html`<th>class</th><th class="number">AP</th><th></th><th class="number">AP at 0.50</th><th class="number">recall</th><th class="number">judged on</th><th class="number">objects</th>`,
    rows,
  );
}

function confusions(labels: readonly string[], matrix: readonly (readonly number[])[]): Html {
  const name = (at: number) => labels[at] ?? `class ${at}`;
  if (matrix.length > LARGEST_MATRIX) {
    const pairs = matrix
      .flatMap((row, is) => row.map((count, called) => ({ is, called, count, share: count / total(row) })))
      .filter(({ is, called, count }) => is !== called && count > 0)
      .sort((a, b) => b.count - a.count || b.share - a.share)
      .slice(0, MOST_CONFUSIONS);
    const rows = pairs.map(
      ({ is, called, count, share }) =>
        html`<tr><td>${name(is)}</td><td>${name(called)}</td><td class="number">${count}</td><td class="number">${percent(share)}</td></tr>`,
    );
    return html`<div class="card scroll"><table class="full"><thead><tr><th>is</th><th>was called</th><th class="number">times</th><th class="number">of the class</th></tr></thead><tbody>${rows}</tbody></table></div>`;
  }
  const head = matrix.map((_, at) => html`<th class="column"><div>${name(at)}</div></th>`);
  const rows = matrix.map((row, is) => {
    const cells = row.map((count, called) => {
      if (count === 0) return html`<td class="none">·</td>`;
      const share = count / total(row);
      const told = `${name(is)}, called ${name(called)}: ${count} of ${total(row)}`;
      return html`<td title="${told}" style="background: rgba(var(--heat), ${(0.1 + 0.5 * share).toFixed(2)})">${count}</td>`;
    });
    return html`<tr><th class="row">${name(is)}</th>${cells}</tr>`;
  });
  return html`<div class="card scroll"><p class="quiet">A row is what it is, a column what it was called.</p><table class="confusion"><thead><tr><th></th>${head}</tr></thead><tbody>${rows}</tbody></table></div>`;
}

function picture({ source, id, expected, predicted, confidence }: Picture): Html {
  const sure =
    confidence === undefined ? undefined : html` <span class="quiet">${percent(confidence)} sure</span>`;
  return html`<figure class="card"><img src="${source}" alt="${id}" /><figcaption><span class="is">${expected}</span> was called <span class="called">${predicted}</span>${sure}<br /><span class="quiet">${id}</span></figcaption></figure>`;
}

function settings(values: Readonly<Record<string, unknown>>): Html {
  const rows = Object.entries(values).map(([name, value]) => {
    const text = typeof value === "string" ? value : JSON.stringify(value);
    return html`<tr><th>${name}</th><td><code>${text}</code></td></tr>`;
  });
  return html`<div class="card scroll"><table class="full"><tbody>${rows}</tbody></table></div>`;
}

function data({ name, digest, training, validation, problems }: ReportedData, classes: number): Html {
  const left = problems
    .slice(0, MOST_PROBLEMS)
    .map(({ id, problem }) => html`<tr><td><code>${id}</code></td><td>${problem}</td></tr>`);
  const more = problems.length - MOST_PROBLEMS;
  return html`<div class="card scroll"><table class="full"><tbody>
<tr><th>name</th><td>${name}</td></tr>
<tr><th>learned from</th><td>${training} examples of ${classes} classes</td></tr>
<tr><th>judged on</th><td>${validation} examples</td></tr>
<tr><th>digest</th><td><code>${digest}</code></td></tr>
<tr><th>left out</th><td>${problems.length === 0 ? "nothing" : problems.length}</td></tr>
</tbody></table>
${problems.length === 0 ? undefined : html`<table class="full"><tbody>${left}</tbody></table>`}
${more > 0 ? html`<p class="quiet">and ${more} more</p>` : undefined}</div>`;
}

function total(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}

function orDash(share: number | undefined): string {
  return share === undefined ? "-" : percent(share);
}
