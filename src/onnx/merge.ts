/** What models bring beside their graphs when nodes of several become one: operator sets. */
import { create } from "@bufbuild/protobuf";
import { PolyheadError } from "../base/errors.js";
import { OperatorSetIdProtoSchema } from "./generated/onnx_pb.js";
import { canonicalDomain, type Model, type Node, opsetVersion, subgraphs } from "./model.js";
import { meaningVersion } from "./operator-changes.js";

/** A model or function, and those of its nodes that become part of something new. */
export interface Contribution {
  readonly model: Pick<Model, "opsetImport">;
  readonly nodes: readonly Node[];
}

/**
 * The operator sets for nodes of several models. Versions may differ where every operator in use means the
 * same in all of them; the newest is taken.
 * @throws PolyheadError MODEL_UNSUPPORTED
 */
export function joinOperatorSets(parts: readonly Contribution[]): Model["opsetImport"] {
  const models = parts.map(({ model }) => model);
  const domains = new Set(
    models.flatMap((each) => each.opsetImport.map(({ domain }) => canonicalDomain(domain))),
  );
  return [...domains].map((domain) => {
    const newest = Math.max(...models.map((each) => opsetVersion(each, domain) ?? 0));
    for (const { model: each, nodes } of parts) {
      const own = opsetVersion(each, domain);
      if (own === undefined || own === newest) continue;
      const changed = operatorsOf(nodes, domain).find(
        (opType) => meaningVersion(domain, opType, own) !== meaningVersion(domain, opType, newest),
      );
      if (changed === undefined) continue;
      throw new PolyheadError(
        "MODEL_UNSUPPORTED",
        `The parts use versions ${own} and ${newest} of the operator set ${JSON.stringify(domain || "ai.onnx")}, between which ${changed} changed. Export them for the same version, or bring the older ones up with "polyhead import" (a split model: its whole, before it is split).`,
        { domain, versions: [own, newest], operator: changed },
      );
    }
    return create(OperatorSetIdProtoSchema, { domain, version: BigInt(newest) });
  });
}

function operatorsOf(nodes: readonly Node[], domain: string): string[] {
  return nodes.flatMap((each) => [
    ...(canonicalDomain(each.domain) === domain ? [each.opType] : []),
    ...subgraphs(each).flatMap((body) => operatorsOf(body.node, domain)),
  ]);
}
