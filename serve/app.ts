/** From paths to what answers them: `hono` routes, and is used nowhere else. */
import { Hono } from "hono";
import type { Api } from "./api.ts";
import { ApiError, apiErrorOf } from "./errors.ts";
import { type Gate, SECURITY_HEADERS } from "./gate.ts";
import { PAGE } from "./page.ts";

/** A path, its answer, and whether everybody may ask. */
interface Route {
  readonly method: "GET" | "POST";
  readonly path: string;
  /** Needs no key: says nothing of the model or of its users. */
  readonly isOpen?: boolean;
  answer(request: Request, name: string): Response | Promise<Response>;
}

function routesOf(api: Api): readonly Route[] {
  return [
    ...Object.entries(PAGE).map(([path, { text, type }]): Route => ({
      method: "GET",
      path,
      isOpen: true,
      answer: () => new Response(text, { headers: { "content-type": type } }),
    })),
    { method: "GET", path: "/health", isOpen: true, answer: () => api.health() },
    { method: "GET", path: "/metrics", answer: () => api.metricsText() },
    { method: "GET", path: "/props", answer: () => api.props() },
    { method: "GET", path: "/v1/models", answer: () => api.models() },
    { method: "GET", path: "/v1/models/:name{.+}", answer: (_, name) => api.model(name) },
    { method: "POST", path: "/v1/chat/completions", answer: (request) => api.chat(request) },
    { method: "POST", path: "/v1/completions", answer: (request) => api.completion(request) },
    { method: "POST", path: "/tokenize", answer: (request) => api.tokenize(request) },
    { method: "POST", path: "/extract", answer: (request) => api.extract(request) },
  ];
}

/** Answers requests: those that the gate lets in by what `api` does, the others and what fails by an error in JSON. */
export function createApp(
  api: Api,
  gate: Gate,
  onProblem: (text: string) => void,
): (request: Request) => Promise<Response> {
  const app = new Hono();
  for (const { method, path, isOpen = false, answer } of routesOf(api)) {
    app.on(method, path, async ({ req }) => {
      if (!isOpen) gate.checkKey(req.raw);
      if (method === "POST") gate.checkType(req.raw);
      return await answer(req.raw, req.param("name") ?? "");
    });
    app.all(path, () => {
      throw new ApiError(405, `This path takes ${method} alone`, { headers: { allow: method } });
    });
  }
  app.notFound(() => new ApiError(404, "There is nothing at this path").toResponse());
  app.onError((error) => apiErrorOf(error, onProblem).toResponse());
  const paths = routesOf(api).map(({ path }) => path);
  return async (request) => {
    let response: Response;
    try {
      gate.checkSender(request);
      response = await app.fetch(request);
    } catch (error) {
      response = apiErrorOf(error, onProblem).toResponse();
    }
    for (const [name, value] of Object.entries(SECURITY_HEADERS)) response.headers.set(name, value);
    const pathname = URL.parse(request.url)?.pathname ?? "";
    const path = paths.includes(pathname) ? pathname : "other";
    api.metrics.add("longreach_requests_total", 1, { path, status: String(response.status) });
    return response;
  };
}
