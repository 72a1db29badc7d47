/** Reports: well formed, whole, nothing from outside, nothing of a name's text taken for markup; plots. */
import { DOMParser, type Element, onErrorStopParsing } from "@xmldom/xmldom";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  escaped,
  html,
  pictureUri,
  plotSvg,
  type TrainingReport,
  trainingReport,
} from "../../src/report/index.js";
import { float32 } from "../../src/tensor/index.js";
import { classificationQuality, decodeImage, detectionQuality } from "../../src/vision/index.js";
import { foodPhoto } from "../vision/pictures.js";

/** The document of a text, or an error for what is not well formed. */
function parse(text: string): Element {
  const root = new DOMParser({ onError: onErrorStopParsing }).parseFromString(
    text.replace("<!DOCTYPE html>", ""),
    "text/xml",
  ).documentElement;
  if (!root) throw new Error("no document");
  return root;
}

const texts = (root: Element, name: string) =>
  Array.from(root.getElementsByTagName(name)).map((each) => each.textContent ?? "");

const labels = ["fruits & nuts", "<script>alert(1)</script>", "pulses"];
const scores = float32([4, 3], [2, 0, 0, 0, 3, 0, 5, 0, 0, 0, 0, 1]);
const report: TrainingReport = {
  title: "Food </title><b>",
  subtitle: "head on mobilenet",
  figures: [{ label: "accuracy", value: "75.0 %", note: "30.1 to 95.4 %" }],
  curves: [
    {
      title: "Loss",
      x: { label: "step" },
      y: { label: "loss" },
      series: [
        { label: "training", points: [...Array(1000).keys()].map((at) => [at, 1 / (at + 1)] as const) },
      ],
    },
  ],
  labels,
  classification: classificationQuality(scores, [0, 1, 2, 2]),
  pictures: [
    {
      source: "data:image/jpeg;base64,AAAA",
      id: 'a"b.jpg',
      expected: "pulses",
      predicted: labels[1] ?? "",
      confidence: 0.98,
    },
  ],
  settings: { seed: 1, optimizer: { name: "adam" }, "a<b": "x&y" },
  data: {
    name: "food",
    digest: "sha256:00",
    training: 16,
    validation: 4,
    counts: [6, 5, 5],
    problems: [{ id: "bad.jpg", problem: "is broken <" }],
  },
  notes: ["Copies were left out."],
};

describe("a report", () => {
  it("says what it was given, well formed, and loads nothing", () => {
    const text = trainingReport(report);
    const root = parse(text);
    expect(texts(root, "h1")).toEqual(["Food </title><b>"]);
    expect(texts(root, "h2")).toEqual([
      "Notes",
      "How it went",
      "By class",
      "What is called what",
      "The surest mistakes",
      "Settings",
      "Data",
    ]);
    expect(root.getElementsByTagName("script")).toHaveLength(0);
    const cells = texts(root, "td");
    for (const cell of [...labels, '{"name":"adam"}', "x&y", "is broken <", "sha256:00"])
      expect(cells).toContain(cell);
    expect(texts(root, "figcaption")[0]).toContain("pulses was called <script>alert(1)</script> 98.0 % sure");
    const links = ["src", "href", "srcset", "action"].flatMap((name) =>
      Array.from(root.getElementsByTagName("*")).flatMap((each) => each.getAttribute(name) ?? []),
    );
    expect(links).toEqual(["data:image/jpeg;base64,AAAA"]);
    expect(text).not.toMatch(/url\(|@import|https?:\/\/(?!www\.w3\.org)/);
    expect(text).toContain("default-src 'none'");
  });

  it("shows each count of the confusion matrix in its place", () => {
    const root = parse(trainingReport(report));
    const table = Array.from(root.getElementsByTagName("table")).find(
      (each) => each.getAttribute("class") === "confusion",
    );
    if (!table) throw new Error("no matrix");
    const rows = Array.from(table.getElementsByTagName("tr")).slice(1);
    expect(rows.map((row) => texts(row, "td"))).toEqual([
      ["1", "·", "·"],
      ["·", "1", "·"],
      ["1", "·", "1"],
    ]);
  });

  it("lists the most frequent confusions of many classes", () => {
    const classes = 40;
    const expected = [...Array(80).keys()].map((at) => at % classes);
    const values = expected.flatMap((own, at) =>
      [...Array(classes).keys()].map((each) => (each === (at % 7 === 0 ? (own + 1) % classes : own) ? 1 : 0)),
    );
    const text = trainingReport({
      ...report,
      labels: [...Array(classes).keys()].map((at) => `class-${at}`),
      classification: classificationQuality(float32([80, classes], values), expected),
    });
    expect(texts(parse(text), "th")).toContain("was called");
    expect(text).not.toContain('class="confusion"');
  });

  it("is of detections too, and of very little", () => {
    const box = { x1: 0, y1: 0, x2: 50, y2: 50 };
    const detection = detectionQuality(
      [{ objects: [{ ...box, classIndex: 0 }], detections: [{ box, classIndex: 0, score: 1 }] }],
      3,
    );
    const { classification: _, pictures: __, notes: ___, ...rest } = report;
    const root = parse(trainingReport({ ...rest, detection }));
    expect(texts(root, "th")).toContain("AP at 0.50");
    expect(texts(root, "td").filter((cell) => cell === "100.0 %")).toHaveLength(3);
    const empty = parse(
      trainingReport({ ...rest, curves: [], figures: [], data: { ...report.data, problems: [] } }),
    );
    expect(texts(empty, "h2")).toEqual(["Settings", "Data"]);
  });

  it("has pictures as data, small", async () => {
    const image = await decodeImage(foodPhoto("A001"));
    const uri = await pictureUri(image, 96);
    expect(uri.length).toBeLessThan(12_000);
    const bytes = Buffer.from(uri.replace("data:image/jpeg;base64,", ""), "base64");
    const { width, height } = await decodeImage(new Uint8Array(bytes));
    expect(Math.max(width, height)).toBe(96);
    expect(Math.abs(width / height - image.width / image.height)).toBeLessThan(0.05);
  });
});

describe("HTML", () => {
  it("takes any text as text", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        const root = parse(html`<p title="${text}">${[text, undefined, 3]}</p>`.text);
        // XML reads line ends as \n, and those of attributes as spaces.
        const expected = text.replace(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, "\ufffd");
        expect(root.textContent).toBe(`${expected.replace(/\r\n?/g, "\n")}3`);
      }),
    );
    expect(escaped(`<a href="x">'&`)).toBe("&lt;a href=&quot;x&quot;&gt;&#39;&amp;");
  });
});

describe("a plot", () => {
  const number = fc.oneof(
    fc.double(),
    fc.double({ min: -1e3, max: 1e3 }),
    fc.constantFrom(
      0,
      1,
      5e-324,
      -5e-324,
      1e-310,
      1e300,
      Number.MAX_VALUE,
      -Number.MAX_VALUE,
      1e16,
      1e16 + 2,
    ),
  );
  const series = fc.record({
    label: fc.string(),
    kind: fc.constantFrom("line" as const, "points" as const, "both" as const),
    points: fc.array(fc.tuple(number, number), { maxLength: 30 }),
    names: fc.array(fc.string(), { maxLength: 30 }),
  });

  it("of whatever numbers is well formed and within its frame", () => {
    fc.assert(
      fc.property(fc.array(series, { maxLength: 4 }), fc.boolean(), fc.boolean(), (list, one, other) => {
        const text = plotSvg({
          title: "a < b",
          x: { label: "x", isLogarithmic: one },
          y: { label: "y", isLogarithmic: other, includes: [1] },
          series: list,
        });
        const root = parse(text);
        expect(text).not.toMatch(/NaN|Infinity|undefined/);
        for (const circle of Array.from(root.getElementsByTagName("circle"))) {
          const [x, y] = [Number(circle.getAttribute("cx")), Number(circle.getAttribute("cy"))];
          expect(x).toBeGreaterThanOrEqual(0);
          expect(x).toBeLessThanOrEqual(520);
          expect(y).toBeGreaterThanOrEqual(0);
          expect(y).toBeLessThanOrEqual(300);
        }
      }),
    );
  });

  it("puts points in proportion between round ticks", () => {
    const root = parse(
      plotSvg({
        title: "t",
        x: { label: "cost", includes: [0] },
        y: { label: "accuracy", includes: [0, 1] },
        series: [
          {
            label: "s",
            kind: "points",
            points: [
              [0, 0],
              [5, 0.5],
              [10, 1],
            ],
            names: ["none", "half", "all"],
          },
        ],
      }),
    );
    const at = Array.from(root.getElementsByTagName("circle")).map((each) => [
      Number(each.getAttribute("cx")),
      Number(each.getAttribute("cy")),
    ]);
    const [[x0 = 0, y0 = 0] = [], [x1 = 0, y1 = 0] = [], [x2 = 0, y2 = 0] = []] = at;
    expect(x1).toBeCloseTo((x0 + x2) / 2, 0);
    expect(y1).toBeCloseTo((y0 + y2) / 2, 0);
    expect(x2).toBeGreaterThan(x0);
    expect(y2).toBeLessThan(y0);
    const shown = texts(root, "text");
    for (const tick of ["0", "2", "4", "6", "8", "10", "0.0", "0.2", "1.0", "half"])
      expect(shown).toContain(tick);
    expect(texts(root, "title")).toContain("half: 5, 0.5");
  });

  it("breaks its line where a number is missing", () => {
    const root = parse(
      plotSvg({
        title: "t",
        x: { label: "x" },
        y: { label: "y" },
        series: [
          {
            label: "s",
            points: [
              [0, 1],
              [1, Number.NaN],
              [2, 3],
              [3, 4],
            ],
          },
        ],
      }),
    );
    const path = root.getElementsByTagName("path")[0]?.getAttribute("d") ?? "";
    expect(path.match(/M/g)).toHaveLength(2);
    expect(path.match(/L/g)).toHaveLength(1);
  });
});
