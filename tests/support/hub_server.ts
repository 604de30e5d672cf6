import { createHash } from "../../checkpoint/deps.ts";

/** A repository of the server: its files, the largest kept as LFS keeps them. */
export interface HubRepository {
  readonly kind: "model" | "dataset";
  readonly name: string;
  readonly commit: string;
  readonly files: Readonly<Record<string, Uint8Array<ArrayBuffer>>>;
}

/** What goes wrong with a request for a file. */
export type Fault = (request: Request, bytes: Uint8Array<ArrayBuffer>) => Response | undefined;

/** A hub on this machine, with the answers of the real one that the client reads, and faults on request. */
export class HubServer implements AsyncDisposable {
  readonly requests: {
    readonly path: string;
    readonly range: string | null;
    readonly token: string | null;
  }[] = [];
  fault: Fault | undefined;
  /** What goes wrong with a question to the API, by its path. */
  apiFault: ((request: Request, path: string) => Response | Promise<Response> | undefined) | undefined;
  /** Refuses requests without this token. */
  token: string | undefined;
  /** Takes uploads, if it is there. */
  uploads: { answer(request: Request): Promise<Response | undefined> } | undefined;
  readonly #server: Deno.HttpServer<Deno.NetAddr>;

  constructor(readonly repositories: readonly HubRepository[], readonly redirectTo?: string) {
    this.#server = Deno.serve(
      { hostname: "127.0.0.1", port: 0, onListen() {} },
      (request) => this.#answer(request),
    );
  }

  get url(): string {
    return `http://127.0.0.1:${this.#server.addr.port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
  }

  async #answer(request: Request): Promise<Response> {
    const path = decodeURIComponent(new URL(request.url).pathname);
    const token = request.headers.get("authorization");
    this.requests.push({ path, range: request.headers.get("range"), token });
    if (this.token !== undefined && token !== `Bearer ${this.token}`) {
      return Response.json({ error: "no" }, { status: 401 });
    }
    const uploaded = await this.uploads?.answer(request);
    if (uploaded) return uploaded;
    const api = /^\/api\/(model|dataset)s\/([^/]+\/[^/]+)\/(revision|tree)\/([^/]+)/.exec(path);
    const file = /^\/(datasets\/)?([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/.exec(path);
    const find = (kind: string, name: string, revision: string) =>
      this.repositories.find((repo) =>
        repo.kind === kind && repo.name === name && [repo.commit, "main"].includes(revision)
      );
    const faulty = api && await this.apiFault?.(request, path);
    if (faulty) return faulty;
    if (api) {
      const [, kind, name, question, revision] = api;
      const repo = find(kind!, name!, revision!);
      if (!repo) return Response.json({ error: "not found" }, { status: 404 });
      return question === "revision"
        ? Response.json({
          _id: "1",
          id: name,
          sha: repo.commit,
          private: false,
          downloads: 0,
          likes: 0,
          gated: false,
          lastModified: "2026-01-01",
        })
        : Response.json(Object.entries(repo.files).map(([path, bytes]) => listing(path, bytes)));
    }
    if (file) {
      const [, dataset, name, revision, path] = file;
      const bytes = find(dataset ? "dataset" : "model", name!, revision!)?.files[path!];
      if (!bytes) return new Response("not found", { status: 404 });
      return this.fault?.(request, bytes) ?? serve(request, bytes);
    }
    return new Response("not found", { status: 404 });
  }
}

/** The bytes asked for by a range, or all. */
export function serve(request: Request, bytes: Uint8Array<ArrayBuffer>): Response {
  const from = Number(/^bytes=(\d+)-$/.exec(request.headers.get("range") ?? "")?.[1] ?? NaN);
  if (Number.isNaN(from)) return new Response(bytes);
  if (from >= bytes.length) return new Response(null, { status: 416 });
  const headers = { "content-range": `bytes ${from}-${bytes.length - 1}/${bytes.length}` };
  return new Response(bytes.slice(from), { status: 206, headers });
}

function listing(path: string, bytes: Uint8Array): unknown {
  const git = createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  const lfs = path.endsWith(".safetensors")
    ? { oid: sha256, size: bytes.length, pointerSize: 130 }
    : undefined;
  return { type: "file", path, size: bytes.length, oid: git, ...(lfs && { lfs }) };
}
