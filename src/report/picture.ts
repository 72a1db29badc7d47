/** Small pictures for reports. Needs Node (sharp). */
import sharp from "sharp";
import type { Image } from "../vision/image.js";

/** The image as a `data:` URI of a JPEG whose longer side has at most `side` pixels; some 5 KB at 200. */
export async function pictureUri({ width, height, rgb }: Image, side = 200): Promise<string> {
  const bytes = await sharp(rgb, { raw: { width, height, channels: 3 }, limitInputPixels: false })
    .resize({ width: side, height: side, fit: "inside", withoutEnlargement: true })
    .jpeg({ quality: 75, mozjpeg: true })
    .toBuffer();
  return `data:image/jpeg;base64,${bytes.toString("base64")}`;
}
