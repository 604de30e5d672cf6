import { createHash } from "../../checkpoint/deps.ts";
import type { HubServer } from "./hub_server.ts";

/** A commit that a client made. */
export interface Commit {
  readonly repository: string;
  readonly summary: string;
  readonly files: Readonly<Record<string, Uint8Array>>;
}

/** Files from here on go to storage of their own. */
const LFS_BYTES = 1_000_000;

/** The part of a hub that takes files: repositories are made, large files stored, commits checked. */
export class HubUploads {
  /** Names of repositories that are there, with their visibility. */
  readonly repositories = new Map<string, string>();
  readonly commits: Commit[] = [];
  /** Large files by their SHA-256. */
  readonly stored = new Map<string, Uint8Array>();
  /** Authorization headers that came to the storage, which is nobody's business there. */
  readonly leakedTokens: string[] = [];
  /** Where large files are sent. */
  storage = "";

  /** The answer, if the request is one of these. */
  async answer(request: Request): Promise<Response | undefined> {
    const path = decodeURIComponent(new URL(request.url).pathname);
    if (path === "/api/repos/create") return this.#create(await request.json());
    const [, api, name, question] =
      /^(\/api\/models)?\/([^/]+\/[^/]+?)(?:\.git)?\/(preupload\/main|commit\/main|info\/lfs\/objects\/batch|raw\/main\/README\.md)$/
        .exec(path) ?? [];
    if (name === undefined) return undefined;
    if (question === "raw/main/README.md") {
      const hasCard = this.commits.some((commit) =>
        commit.repository === name && "README.md" in commit.files
      );
      return new Response(null, { status: hasCard ? 200 : 404 });
    }
    if (!this.repositories.has(name)) {
      return Response.json({ error: "Repository not found" }, { status: 404 });
    }
    if (api && question === "preupload/main") {
      const { files } = await request.json();
      return Response.json({
        files: files.map(({ path, size }: { path: string; size: number }) => ({
          path,
          uploadMode: size >= LFS_BYTES || path.endsWith(".safetensors") ? "lfs" : "regular",
        })),
      });
    }
    if (api && question === "commit/main") return this.#commit(name, await request.text());
    const { objects } = await request.json();
    return Response.json({
      transfer: "basic",
      objects: objects.map(({ oid, size }: { oid: string; size: number }) => ({
        oid,
        size,
        ...(this.stored.has(oid) ? {} : { actions: { upload: { href: `${this.storage}/store/${oid}` } } }),
      })),
    });
  }

  /** The storage's answer; it is another server than the hub. */
  async store(request: Request): Promise<Response> {
    const token = request.headers.get("authorization");
    if (token !== null) this.leakedTokens.push(token);
    const oid = new URL(request.url).pathname.split("/").at(-1)!;
    const bytes = new Uint8Array(await request.arrayBuffer());
    const hash = createHash("sha256").update(bytes).digest("hex");
    if (request.method !== "PUT" || hash !== oid) return new Response("not these bytes", { status: 400 });
    this.stored.set(oid, bytes);
    return new Response();
  }

  #create({ organization, name, visibility }: Record<string, string>): Response {
    const id = `${organization}/${name}`;
    if (organization === "others") return Response.json({ error: "not yours" }, { status: 403 });
    if (this.repositories.has(id)) return Response.json({ error: "exists" }, { status: 409 });
    this.repositories.set(id, visibility!);
    return Response.json({ id, url: `https://hub/${id}` });
  }

  #commit(repository: string, body: string): Response {
    const files: Record<string, Uint8Array> = {};
    let summary = "";
    for (const line of body.split("\n")) {
      const { key, value } = JSON.parse(line);
      if (key === "header") summary = value.summary;
      else if (key === "file") files[value.path] = Uint8Array.fromBase64(value.content);
      else {
        const stored = this.stored.get(value.oid);
        if (stored?.length !== value.size) return Response.json({ error: "no such object" }, { status: 400 });
        files[value.path] = stored!;
      }
    }
    this.commits.push({ repository, summary, files });
    const commitOid = "f".repeat(40);
    return Response.json({
      commitOid,
      commitUrl: `https://hub/${repository}/commit/${commitOid}`,
      hookOutput: "",
    });
  }
}

/** Starts the storage of large files and tells the hub to take uploads; disposing of the result ends it. */
export function serveUploads(uploads: HubUploads, server: HubServer): AsyncDisposable {
  const storage = Deno.serve(
    { hostname: "127.0.0.1", port: 0, onListen() {} },
    (request) => uploads.store(request),
  );
  uploads.storage = `http://127.0.0.1:${storage.addr.port}`;
  server.uploads = uploads;
  return storage;
}
