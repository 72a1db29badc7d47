/**
 * Opens the models of the folders it is given, one after the other, and does everything with them that `inspect`,
 * `share` and `split` do before they compute. Prints a line of JSON for each: how it ended, the milliseconds of
 * processor time it took (other programs on the machine do not count), and the most memory that the process had taken by then.
 */
import { join } from "node:path";
import { loadModel } from "../../dist/files/disk.js";
import {
  candidateCuts,
  canonicalGraph,
  costOf,
  GraphIndex,
  identify,
  inferTypes,
  modelBytes,
  readMetadata,
  splitModel,
  toEvaluation,
} from "../../dist/onnx/index.js";

const STEPS = {
  read: async (state) => {
    readMetadata(state.model);
    modelBytes(state.model);
  },
  identify: async (state) => {
    const identities = await identify(state.model);
    canonicalGraph(new GraphIndex(state.model.graph), identities);
  },
  inspect: async (state) => {
    const index = new GraphIndex(state.model.graph);
    const types = inferTypes(state.model);
    costOf(index.order, index, types);
    state.cuts = candidateCuts(state.model, types);
  },
  split: async (state) => {
    const { model } = toEvaluation(state.model);
    const [cut] = state.cuts ?? [];
    if (cut) await splitModel(model, { at: cut.values.map(({ name }) => name) });
  },
};

for (const folder of process.argv.slice(2)) {
  const start = process.cpuUsage();
  const ends = {};
  const attempt = async (name, act) => {
    try {
      await act();
      ends[name] = "ok";
    } catch (thrown) {
      ends[name] =
        thrown?.name === "PolyheadError" && thrown.code !== "INTERNAL"
          ? thrown.code
          : `fault: ${thrown?.stack?.slice(0, 600)}`;
      if (thrown?.message?.length > 2000)
        ends[name] = `fault: a message of ${thrown.message.length} characters`;
    }
  };
  const state = {};
  await attempt("load", async () => {
    state.model = await loadModel(join(folder, "model.onnx"));
  });
  if (state.model) for (const [name, act] of Object.entries(STEPS)) await attempt(name, () => act(state));
  const used = process.cpuUsage(start);
  const mebibytes = Math.round(process.resourceUsage().maxRSS / 1024);
  process.stdout.write(
    `${JSON.stringify({ folder, ends, milliseconds: Math.round((used.user + used.system) / 1000), mebibytes })}\n`,
  );
}
