// Adds to package-lock.json the optional platform packages that the registry used for `npm install` did not
// carry. `npm ci` insists that they are listed, and skips those of other platforms. Run after `npm install`.
import { readFileSync, writeFileSync } from "node:fs";

const path = new URL("../package-lock.json", import.meta.url);
const lock = JSON.parse(readFileSync(path, "utf8"));
const systems = ["android", "darwin", "linux", "win32", "freebsd", "openbsd", "wasm32"];
for (const entry of Object.values(lock.packages)) {
  for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
    const place = `node_modules/${name}`;
    if (lock.packages[place] || !/^\d/.test(version)) continue;
    const words = name.split(/[/-]/);
    const os = systems.find((each) => words.includes(each));
    const cpu = ["arm64", "x64", "ia32", "arm"].find((each) => words.includes(each));
    if (!os || !cpu) continue;
    lock.packages[place] = {
      version,
      cpu: [cpu],
      ...(entry.dev && { dev: true }),
      ...(words.includes("musl") && { libc: ["musl"] }),
      optional: true,
      os: [os],
    };
  }
}
const sorted = Object.entries(lock.packages).sort(([a], [b]) => (a < b ? -1 : 1));
lock.packages = Object.fromEntries(sorted);
writeFileSync(path, `${JSON.stringify(lock, null, 2)}\n`);
