/**
 * Service definitions for grpc-js out of the generated descriptors. Messages pass grpc-js as bytes: what cannot be
 * decoded is the client's fault, and only our own handlers say so with the right status.
 */

import type { DescService } from "@bufbuild/protobuf";
import type { MethodDefinition } from "@grpc/grpc-js";

/** A method whose messages are bytes. */
export type BytesMethod = MethodDefinition<Buffer, Buffer>;

/** All methods of a service by their names. */
export function serviceDefinition(service: DescService): Record<string, BytesMethod> {
  return Object.fromEntries(
    service.methods.map(({ name, methodKind }) => [
      name,
      {
        path: `/${service.typeName}/${name}`,
        requestStream: methodKind === "client_streaming" || methodKind === "bidi_streaming",
        responseStream: methodKind === "server_streaming" || methodKind === "bidi_streaming",
        requestSerialize: same,
        requestDeserialize: same,
        responseSerialize: same,
        responseDeserialize: same,
      },
    ]),
  );
}

function same(bytes: Buffer): Buffer {
  return bytes;
}
