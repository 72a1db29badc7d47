/**
 * Adam's update of as many parameters as ResNet-18 has, one thread: as it is done, as JavaScript, and what it would take to copy
 * parameters and moments alone, which is what came out of each run when the update was a part of the graph.
 */
import { Arena } from "../dist/runtime/arena.js";
import { updateKernel } from "../dist/train/optimizers.js";
import { digits, interleave, spread, table } from "./measure.js";

const PARAMETERS = 11_689_512;
const ADAM = /** @type {const} */ ({ kind: "adam" });

/** @param {{ quick: boolean }} options */
export async function measureUpdates({ quick }) {
  const arena = new Arena();
  const kernel = updateKernel(ADAM, { scaled: false });
  const places = [0, 1, 2].map(() => arena.place(PARAMETERS));
  const gradient = Float32Array.from({ length: PARAMETERS }, (_, at) => Math.sin(at));
  const [parameter = new Float32Array(0), mean = parameter, square = parameter] = places.map(
    () => new Float32Array(PARAMETERS),
  );
  let copies = /** @type {Float32Array[]} */ ([]);
  const times = await interleave(
    {
      "in place, as WebAssembly": async () => arena.run(kernel, [...places, gradient], [1e-3, 1, 1e-8]),
      "in place, as JavaScript": async () => adam(parameter, mean, square, gradient),
      "three copies, nothing computed": async () => {
        copies = [parameter, mean, square].map((each) => each.slice());
      },
    },
    { rounds: quick ? 3 : 15 },
  );
  if (copies.length !== 3) throw new Error("Nothing was copied.");
  return {
    title: `Adam's update of ${PARAMETERS} parameters, one thread`,
    table: table([
      ["way", "ms: median (quartiles)", "ns a parameter"],
      ...Object.entries(times).map(([name, time]) => [
        name,
        spread(time),
        digits((time.median * 1e6) / PARAMETERS),
      ]),
    ]),
    results: times,
    targets: [],
  };
}

/**
 * @param {Float32Array} parameter
 * @param {Float32Array} mean
 * @param {Float32Array} square
 * @param {Float32Array} gradient
 */
function adam(parameter, mean, square, gradient) {
  const round = Math.fround;
  for (let at = 0; at < parameter.length; at++) {
    const g = gradient[at] ?? 0;
    const m = round(round((mean[at] ?? 0) * round(0.9)) + g);
    const s = round(round((square[at] ?? 0) * round(0.999)) + round(g * g));
    mean[at] = m;
    square[at] = s;
    parameter[at] =
      (parameter[at] ?? 0) - round(round(m * round(1e-3)) / round(round(Math.sqrt(s)) + round(1e-8)));
  }
}
