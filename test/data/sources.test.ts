/** What is listed by folders, lists, COCO and Pascal VOC files, and what is refused. */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  asBoxes,
  asClasses,
  openSource,
  readCocoFile,
  readListFile,
  readVocFolder,
} from "../../src/data/index.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "polyhead-"));
});
afterAll(() => rm(folder, { recursive: true }));

/** Writes a file below the folder of this test; gives its path. */
async function put(name: string, content: unknown): Promise<string> {
  const path = join(folder, name);
  await mkdir(dirname(path), { recursive: true });
  await writeFile(path, typeof content === "string" ? content : JSON.stringify(content));
  return path;
}

describe("a list of images", () => {
  it("is CSV with quoted fields, byte order mark and columns in any order", async () => {
    const path = await put(
      "list.csv",
      '\ufefflabel,extra,image\r\nham,1,"a, b.jpg"\r\n"egg ""x""",2,sub/c.jpg\r\n',
    );
    expect(await readListFile(path)).toEqual({
      labels: ['egg "x"', "ham"],
      images: [
        { id: "a, b.jpg", path: join(folder, "a, b.jpg"), target: 1 },
        { id: "sub/c.jpg", path: join(folder, "sub/c.jpg"), target: 0 },
      ],
      problems: [],
    });
  });

  it("is JSON or JSON lines, with numbers as classes", async () => {
    const records = [
      { file: "1.png", class: 7 },
      { file: "2.png", class: 10 },
    ];
    const json = await put("list.json", records);
    const lines = await put("list.jsonl", records.map((record) => JSON.stringify(record)).join("\n\n"));
    const { labels, images } = await readListFile(json);
    expect(labels).toEqual(["10", "7"]);
    expect(images.map(({ target }) => target)).toEqual([1, 0]);
    expect(await readListFile(lines)).toEqual({ labels, images, problems: [] });
  });

  it("lists records it cannot use", async () => {
    const path = await put("holes.csv", "image,label\na.jpg,x\n,x\nb.jpg,\na.jpg,x\nc.jpg,y\n");
    const { images, problems } = await readListFile(path);
    expect(images.map(({ id }) => id)).toEqual(["a.jpg", "c.jpg"]);
    expect(problems).toEqual([
      { id: "record 2", problem: "it has no image" },
      { id: "b.jpg", problem: "it has no label (record 3)" },
      { id: "a.jpg", problem: "it is listed twice (record 4)" },
    ]);
  });

  it("is refused as a whole when it cannot be understood", async () => {
    const cases: [string, unknown, RegExp][] = [
      ["empty.csv", "", /no records/],
      ["header.csv", "image,label\n", /no records/],
      ["columns.csv", "picture,label\na.jpg,x\n", /image, file, filename, path; got picture, label/],
      ["ragged.csv", "image,label\na.jpg,x,y\n", /not CSV/],
      ["quote.csv", 'image,label\n"a.jpg,x\n', /not CSV/],
      ["two.csv", "image,label\na.jpg,x\na.jpg,y\n", /record 2 puts "a.jpg" into "y"/],
      ["text.json", "nonsense", /not JSON/],
      ["number.json", 3, /expected an array/],
      ["mixed.json", [{ image: "a", label: "b" }, 4], /record 2 is 4; expected an object/],
      ["line.jsonl", '{"image":"a","label":"b"}\n{', /line 2: it is not JSON/],
    ];
    for (const [name, content, message] of cases) {
      await expect(readListFile(await put(name, content)), name).rejects.toMatchObject({
        code: "DATA_MALFORMED",
        message: expect.stringMatching(message),
      });
    }
    await writeFile(join(folder, "latin.csv"), Buffer.from("image,label\n\xe9.jpg,x\n", "latin1"));
    await expect(readListFile(join(folder, "latin.csv"))).rejects.toThrow(/UTF-8/);
    await expect(readListFile(join(folder, "nowhere.csv"))).rejects.toMatchObject({ code: "FILE_NOT_FOUND" });
  });
});

const COCO = {
  info: {},
  images: [
    { id: 9, file_name: "b.jpg", width: 100, height: 50 },
    { id: 4, file_name: "a.jpg" },
  ],
  categories: [
    { id: 18, name: "dog" },
    { id: 3, name: "car" },
  ],
  annotations: [
    { id: 1, image_id: 9, category_id: 18, bbox: [10, 20, 30, 5.5], area: 99.5, iscrowd: 0 },
    { id: 2, image_id: 9, category_id: 3, bbox: [0, 0, 100, 50], iscrowd: 1 },
    { id: 3, image_id: 4, category_id: 3, bbox: [1, 2, "x", 4] },
    { id: 4, image_id: 5, category_id: 3, bbox: [1, 2, 3, 4] },
    { id: 5, image_id: 4, category_id: 1, bbox: [1, 2, 3, 4] },
    { id: 6, image_id: 4, category_id: 3, bbox: [1, 2, 3] },
    null,
  ],
};

describe("COCO's boxes", () => {
  it("become corners, with classes by rising category id", async () => {
    const { labels, images, problems } = await readCocoFile(await put("coco/instances.json", COCO));
    expect(labels).toEqual(["car", "dog"]);
    expect(images[0]).toEqual({
      id: "b.jpg",
      path: join(folder, "coco", "b.jpg"),
      target: [
        { x1: 10, y1: 20, x2: 40, y2: 25.5, classIndex: 1, area: 99.5 },
        { x1: 0, y1: 0, x2: 100, y2: 50, classIndex: 0, isIgnored: true },
      ],
      listedSize: { width: 100, height: 50 },
    });
    expect(images[1]?.listedSize).toBeUndefined();
    expect(images[1]?.target).toEqual([{ x1: 1, y1: 2, x2: Number.NaN, y2: 6, classIndex: 0 }]);
    expect(problems.map(({ id }) => id)).toEqual([
      "annotation 4",
      "annotation 5",
      "annotation 6",
      "annotation at place 6",
    ]);
  });

  it("find their images beside, below and next to the file's folder, or where they are told", async () => {
    const pathOf = async (file: string, images?: string) =>
      (await readCocoFile(await put(file, COCO), images)).images[0]?.path;
    await put("below/images/b.jpg", "");
    expect(await pathOf("below/all.json")).toBe(join(folder, "below/images/b.jpg"));
    await put("next/val2017/b.jpg", "");
    expect(await pathOf("next/annotations/instances_val2017.json")).toBe(join(folder, "next/val2017/b.jpg"));
    expect(await pathOf("next/all.json", "/elsewhere")).toBe("/elsewhere/b.jpg");
  });

  it("are refused when the file is not COCO's", async () => {
    const cases: [unknown, RegExp][] = [
      [{ images: [], annotations: [] }, /expected an object with images/],
      [{ ...COCO, images: [{ id: "x" }] }, /no number as id/],
      [{ ...COCO, images: [{ id: 4 }] }, /no file_name/],
      [{ ...COCO, categories: [...COCO.categories, { id: 3 }] }, /have the id 3/],
      [{ ...COCO, categories: [...COCO.categories, { id: 5, name: "car" }] }, /same name/],
    ];
    for (const [content, message] of cases) {
      await expect(readCocoFile(await put("bad.json", content))).rejects.toMatchObject({
        code: "DATA_MALFORMED",
        message: expect.stringMatching(message),
      });
    }
  });
});

const VOC = `<?xml version="1.0"?>
<annotation>
  <folder>VOC2007</folder><filename>000001.jpg</filename>
  <size><width>353</width><height>500</height><depth>3</depth></size>
  <object><name>dog</name><truncated>1</truncated><difficult>0</difficult>
    <bndbox><xmin>48</xmin><ymin>240</ymin><xmax>195</xmax><ymax>371</ymax></bndbox>
    <part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>
  </object>
  <object><name>person &amp; co</name><difficult>1</difficult>
    <bndbox><xmax>352</xmax><xmin>8</xmin><ymin>12</ymin><ymax>498</ymax></bndbox></object>
</annotation>`;

describe("Pascal VOC's boxes", () => {
  it("count pixels from 1 and include the last", async () => {
    await put("voc/Annotations/000001.xml", VOC);
    await put("voc/JPEGImages/000001.jpg", "");
    const { labels, images, problems } = await readVocFolder(join(folder, "voc"));
    expect(labels).toEqual(["dog", "person & co"]);
    expect(images).toEqual([
      {
        id: "000001.jpg",
        path: join(folder, "voc/JPEGImages/000001.jpg"),
        listedSize: { width: 353, height: 500 },
        target: [
          { x1: 47, y1: 239, x2: 195, y2: 371, classIndex: 0 },
          { x1: 7, y1: 11, x2: 352, y2: 498, classIndex: 1, isIgnored: true },
        ],
      },
    ]);
    expect(problems).toEqual([]);
  });

  it("may lie beside their images; files that are no annotation are listed", async () => {
    await put("flat/a.xml", VOC.replace("000001.jpg", "../../etc/passwd"));
    await put("flat/b.xml", "<annotation><object>");
    await put("flat/c.xml", "<html></html>");
    await put("flat/d.xml", "<annotation><object><name>x</name></object></annotation>");
    await put("flat/e.xml", "");
    await put(
      "flat/f.xml",
      VOC.replace("<xmin>48</xmin>", "").replace("<filename>000001.jpg</filename>", ""),
    );
    const { images, problems } = await readVocFolder(join(folder, "flat"));
    expect(images.map(({ path }) => path)).toEqual([join(folder, "flat/passwd"), join(folder, "flat/f.jpg")]);
    expect(images[1]?.target[0]?.x1).toBeNaN();
    expect(problems.map(({ id }) => id)).toEqual(["b.xml", "c.xml", "d.xml", "e.xml"]);
  });

  it("do not unfold entities without end", async () => {
    const bomb = `<!DOCTYPE a [<!ENTITY a "${"x".repeat(1000)}">${["b", "c", "d", "e", "f", "g"]
      .map((name, at) => `<!ENTITY ${name} "${`&${"abcdef"[at]};`.repeat(50)}">`)
      .join("")}]><annotation><object><name>&g;</name></object></annotation>`;
    await put("bomb/a.xml", bomb);
    const read = readVocFolder(join(folder, "bomb"));
    const { labels, problems } = await read;
    expect(labels.join("").length + problems.map(({ problem }) => problem).join("").length).toBeLessThan(
      5000,
    );
  });

  it("need annotations", async () => {
    await mkdir(join(folder, "none"), { recursive: true });
    await expect(readVocFolder(join(folder, "none"))).rejects.toMatchObject({ code: "DATA_MALFORMED" });
    await expect(readVocFolder(join(folder, "nowhere"))).rejects.toMatchObject({ code: "FILE_NOT_FOUND" });
  });
});

describe("a source", () => {
  it("is told by what lies at the path", async () => {
    await put("kinds/x/1.jpg", "");
    await put("kinds/y/2.jpg", "");
    await put("kindvoc/Annotations/000001.xml", VOC);
    const kinds: [string, string][] = [
      [join(folder, "kinds"), "classes"],
      [join(folder, "kindvoc"), "boxes"],
      [await put("kind.json", COCO), "boxes"],
      [await put("kind2.json", [{ image: "a", label: "b" }]), "classes"],
      [await put("kind.csv", "image,label\na,b\n"), "classes"],
    ];
    for (const [path, kind] of kinds) expect((await openSource(path)).kind, path).toBe(kind);
    const source = await openSource(join(folder, "kinds"));
    expect(asClasses("it", source).images.map(({ id }) => id)).toEqual(["x/1.jpg", "y/2.jpg"]);
    expect(() => asBoxes("it", source)).toThrow(/expected boxes/);
  });

  it("is refused when nothing or something else is there", async () => {
    await expect(openSource(join(folder, "no.csv"))).rejects.toMatchObject({ code: "FILE_NOT_FOUND" });
    await expect(openSource(await put("kind.txt", ""))).rejects.toMatchObject({ code: "INVALID_ARGUMENT" });
  });
});
