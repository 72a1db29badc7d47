/**
 * The centre head as a network with random weights: every map is brought to one width and to the size of the finest, they
 * are added, and what is seen around a cell says whether an object's centre is in it, how large the object is, and
 * where in the cell the centre lies. After "Objects as Points" (Zhou et al. 2019), lighter.
 */
import type { Model } from "../../onnx/model.js";
import { type Layer, Network } from "../../train/network.js";
import type { MapTap } from "./detection-site.js";

/** Names of the head's outputs. */
export interface CentreNames {
  readonly heat: string;
  readonly size: string;
  readonly offset: string;
}

/** Probability of an object that every cell begins with is 0.1, so that the many empty ones do not drown the few. */
const FIRST_LOGIT = Math.log(0.1 / 0.9);

/**
 * The head's graph, without metadata: reads the maps by their taps' names and answers `heat` [batch, classes, h, w]
 * (probabilities), `size` and `offset` [batch, 2, h, w], in cells of the finest map.
 * @param options width: channels inside; size: sides of a usual object in cells, which every cell begins with; seed:
 *   decides the weights
 */
export function centreNetwork(
  maps: readonly [MapTap, ...MapTap[]],
  classes: number,
  { width, size: usual, seed }: { readonly width: number; readonly size: number; readonly seed: number },
): { readonly model: Model; readonly names: CentreNames } {
  const taken = new Set(maps.map(({ tap }) => tap.name));
  const own = (name: string) => (taken.has(name) ? `centre_${name}` : name);
  const names = { heat: own("heat"), size: own("size"), offset: own("offset") };
  const net = new Network(seed);
  const [finest] = maps;
  const sides = maps.map(({ tap, channels, height, width: across, stride }, at): Layer => {
    const map = net.input(tap.name, ["batch", channels, height, across]);
    // Maps of several strides are added, so that each begins with its share of the variance.
    const gain = Math.sqrt(2 / maps.length);
    const side = net.convolution(`centre.map${at}`, map, width, { kernel: 1, gain });
    const factor = stride / finest.stride;
    return factor === 1 ? side : net.enlarge(`centre.large${at}`, side, factor);
  });
  const [only] = sides;
  const together = only && sides.length === 1 ? only : net.sum("centre.sum", sides);
  const seen = net.relu("centre.relu", together);
  const around = net.relu("centre.around.relu", net.convolution("centre.around", seen, width));
  const branch = (name: string, channels: number, bias: number, gain: number) =>
    net.convolution(
      name,
      net.relu(`${name}.relu`, net.convolution(`${name}.around`, around, width)),
      channels,
      { kernel: 1, gain, bias },
    );
  const heat = net.sigmoid(names.heat, branch("centre.heat", classes, FIRST_LOGIT, 0.1));
  const size = branch(names.size, 2, usual, 0.1);
  const offset = branch(names.offset, 2, 0.5, 0.1);
  return { model: net.model("centre head", [heat, size, offset]), names };
}
