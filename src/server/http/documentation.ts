/** The OpenAPI document, made of the schemas that the routes name, and the page that renders it. */
import swagger from "@fastify/swagger";
import type { FastifyInstance } from "fastify";
import type { Service } from "../service.js";
import { documentationPage } from "./documentation-page.js";
import { documented } from "./documented.js";

const TAGS = [
  { name: "server", description: "Health, metadata and metrics of the server" },
  {
    name: "models",
    description: "Models by the Open Inference Protocol: routes and backbones; versions are revisions",
  },
  { name: "inference", description: "Answers for tensors and images" },
  { name: "repository", description: "The model repository extension" },
  { name: "statistics", description: "The statistics extension" },
  { name: "control", description: "Routes, their revisions, canaries, shadows and history" },
  { name: "documentation", description: "This document" },
];

/** Collects what the routes say of themselves; before any route is added. */
export async function collectDocumentation(app: FastifyInstance, service: Service): Promise<void> {
  await app.register(swagger, {
    openapi: {
      openapi: "3.1.0",
      info: {
        title: service.name,
        version: service.version,
        description:
          "One backbone, many heads: the Open Inference Protocol v2 with images, and control of routes.",
      },
      tags: TAGS,
      components: { securitySchemes: { token: { type: "http", scheme: "bearer" } } },
    },
  });
}

/** Adds the routes of the document and its page. */
export function addDocumentationRoutes(app: FastifyInstance): void {
  app.get("/openapi.json", documented("documentation", "This document", "open"), async () => app.swagger());
  app.get("/docs", documented("documentation", "This document as a page", "open"), async (_, reply) =>
    reply
      .header("content-type", "text/html; charset=utf-8")
      .header(
        "content-security-policy",
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
      )
      .send(documentationPage(app.swagger())),
  );
}
