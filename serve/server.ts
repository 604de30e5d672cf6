/** A server on one port, from listening to its end. */
import { UserError } from "../errors.ts";
import { Api, type ApiHooks, type ApiLimits, type ServedModel } from "./api.ts";
import { createApp } from "./app.ts";
import { Gate, type GateOptions, isLoopback } from "./gate.ts";

/** Address to listen on, clients to answer, and bounds. */
export interface ServerOptions extends ApiHooks, Partial<ApiLimits> {
  readonly hostname: string;
  /** 0 takes any that is free. */
  readonly port: number;
  readonly allowedHosts?: readonly string[];
  readonly apiKey?: string | null;
}

/** Bounds of requests unless they are given. */
export const LIMITS: ApiLimits = {
  queueSize: 8,
  maxMessages: 100,
  maxBodyBytes: null,
  maxDocumentBytes: 32 * 2 ** 20,
  readTimeoutMs: 10_000,
};

/** Letters of a key that nobody guesses. */
const KEY_LENGTH = 16;
/** Time for answers to end when the server stops. */
const STOP_MS = 5000;

/** Listens from the start, and answers as soon as it has a model. */
export class Server implements AsyncDisposable {
  readonly #api: Api;
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  #ended: Promise<void> | undefined;

  /** @throws {UserError} if it cannot listen there, or others could come in without a key */
  constructor(options: ServerOptions) {
    const { hostname, port, apiKey = null, allowedHosts = [] } = options;
    if (!isLoopback(hostname) && apiKey === null) {
      throw new UserError(`${hostname} is reached from other machines: set --api_key, which they must send`, {
        kind: "usage",
      });
    }
    if (apiKey !== null && apiKey.length < KEY_LENGTH) {
      throw new UserError(`--api_key must have ${KEY_LENGTH} characters or more`, { kind: "usage" });
    }
    this.#api = new Api({ ...LIMITS, ...options }, options);
    let app = (_: Request): Response | Promise<Response> => new Response(null, { status: 503 });
    try {
      this.#server = Deno.serve({ hostname, port, onListen() {} }, (request) => app(request));
    } catch (cause) {
      throw listenError(cause, hostname, port);
    }
    const gate: GateOptions = { hostname, port: this.#server.addr.port, allowedHosts, apiKey };
    app = createApp(this.#api, new Gate(gate), (text) => options.onProblem(text));
  }

  /** Address at which this machine's programs find it. */
  get url(): string {
    const { hostname, port } = this.#server.addr;
    const name = { "0.0.0.0": "127.0.0.1", "::": "[::1]" }[hostname] ??
      (hostname.includes(":") ? `[${hostname}]` : hostname);
    return `http://${name}:${port}`;
  }

  /** Begins to answer. */
  serve(model: ServedModel): void {
    this.#api.serve(model);
  }

  /** Ends what is being answered, and listens no more. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#ended ??= this.#end();
  }

  async #end(): Promise<void> {
    this.#api.stop();
    const { promise: late, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, STOP_MS);
    await Promise.race([this.#server.shutdown(), late]);
    clearTimeout(timer);
  }
}

function listenError(cause: unknown, hostname: string, port: number): unknown {
  const problem = cause instanceof Deno.errors.AddrInUse
    ? "another program listens there. Choose another --port"
    : cause instanceof Deno.errors.AddrNotAvailable
    ? "this machine has no such address"
    : cause instanceof Deno.errors.PermissionDenied
    ? "ports below 1024 are for the administrator. Choose another --port"
    : undefined;
  return problem === undefined
    ? cause
    : new UserError(`Cannot listen on ${hostname}:${port}: ${problem}`, { cause });
}
