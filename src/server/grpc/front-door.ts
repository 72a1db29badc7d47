/**
 * What stands before every call: tokens and the queue are looked at before a message is read, and a message that does
 * not arrive in time is not waited for.
 */
import {
  type Metadata,
  ResponderBuilder,
  ServerInterceptingCall,
  type ServerInterceptor,
  ServerListenerBuilder,
} from "@grpc/grpc-js";
import { PolyheadError } from "../../base/errors.js";
import type { Tokens } from "../protocol/tokens.js";
import type { Service } from "../service.js";
import { authorizationOf, requestIdOf } from "./call.js";
import { GRPCInferenceService } from "./generated/inference_pb.js";
import { SCOPES } from "./inference.js";
import { failure } from "./status.js";

const INFER = `/${GRPCInferenceService.typeName}/ModelInfer`;

/**
 * Refuses before a message is read, and names the request in what is sent back.
 * @param patience milliseconds for the message of a call; a stream may be idle between its messages
 */
export function frontDoor(
  service: Pick<Service, "admit">,
  tokens: Tokens,
  patience: number,
): ServerInterceptor {
  return ({ path, requestStream }, call) => {
    const scope = path.startsWith(`/${GRPCInferenceService.typeName}/`)
      ? SCOPES.get(path.slice(path.lastIndexOf("/") + 1))
      : undefined;
    let timer: NodeJS.Timeout | undefined;
    const listener = new ServerListenerBuilder()
      .withOnReceiveMetadata((metadata: Metadata, next) => {
        const refuse = (thrown: unknown) => call.sendStatus(failure(thrown, requestIdOf(metadata)).status);
        try {
          if (scope !== undefined) tokens.authorize(authorizationOf(metadata), scope);
          if (path === INFER) service.admit();
        } catch (thrown) {
          refuse(thrown);
          return;
        }
        if (!requestStream) timer = setTimeout(() => refuse(tooSlow(patience)), patience).unref();
        next(metadata);
      })
      .withOnReceiveHalfClose((next) => {
        clearTimeout(timer);
        next();
      })
      .withOnCancel(() => clearTimeout(timer))
      .build();
    return new ServerInterceptingCall(
      call,
      new ResponderBuilder().withStart((next) => next(listener)).build(),
    );
  };
}

function tooSlow(patience: number): PolyheadError {
  return new PolyheadError(
    "DEADLINE_EXCEEDED",
    `The message did not arrive within ${patience / 1000} s; nothing more is done for the call.`,
    { patience },
  );
}
