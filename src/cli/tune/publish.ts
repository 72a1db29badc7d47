/** A trained head goes live: kept, then pointed to, so that no request meets anything in between. */
import type { Model } from "../../onnx/model.js";
import { type ControlOptions, openControl } from "../control/open-control.js";

/** What went live. */
export interface Published {
  readonly route: string;
  readonly revision: string;
}

/**
 * Lets a route answer with a head. A route that is not there is made; one that is there is switched when the head has
 * been loaded, and can be rolled back.
 * @param backbone the one that the head reads, where it is a new one
 * @throws PolyheadError as adding and switching do
 */
export async function publish(
  route: string,
  head: { readonly model: Model; readonly title: string },
  backbone: { readonly model: Model; readonly title: string } | undefined,
  options: ControlOptions,
): Promise<Published> {
  const control = await openControl(options, "change");
  if (backbone) await control.add(backbone.model, backbone.title, undefined);
  const revision = await control.add(head.model, head.title, route);
  const now = (await control.routes()).find(({ name }) => name === route);
  const isLive = now?.revisions.length === 1 && now.revisions[0]?.revision === revision;
  if (!isLive) await control.switch({ [route]: revision });
  return { route, revision };
}
