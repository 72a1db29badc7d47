/** What the tests of gRPC serve. */
import { ObservedService } from "../observed-service.js";
import { CARRIED, coco, echo, food, net } from "../protocol-models.js";

/** Dtypes that have a list of their own among typed contents. */
export const TYPED = CARRIED.filter((dtype) => !dtype.endsWith("float16") && dtype !== "string");

/**
 * `food`, which doubles and has an earlier revision `once`, `coco` and the backbone `net`; `echo` of all dtypes that have a
 * list, and `echo_DTYPE` of those that have none, of a small one, of a long one and of texts.
 */
export async function served(): Promise<ObservedService> {
  const alone = ["float16", "bfloat16", "int8", "int64", "string"] as const;
  const service = await ObservedService.of(
    {
      food: food(1),
      coco: coco(),
      echo: echo(...TYPED),
      ...Object.fromEntries(alone.map((dtype) => [`echo_${dtype}`, echo(dtype)])),
    },
    { twice: food(2), net: await net() },
  );
  const { twice = "" } = service.revisions;
  await service.deployment.setTargets(
    { food: { revisions: [{ revision: twice, weight: 1 }], shadows: [] } },
    { by: "test" },
  );
  return service;
}
