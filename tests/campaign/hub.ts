/**
 * Downloads under schedules of faults. Whatever the server, the cache and other processes do: a file is right by its hash
 * or there is one clear line, no wrong file gets a final name, the token goes to one host, and nothing is written outside
 * of the cache. Afterwards, with all well again, everything is fetched and nothing unfinished is left.
 */
import { createHash } from "../../checkpoint/deps.ts";
import { fetchSnapshot, type SnapshotOptions } from "../../hub/hub.ts";
import { parseHubReference } from "../../hub/reference.ts";
import { UserError } from "../../errors.ts";
import { withFolder } from "../support/files.ts";
import { type HubRepository, HubServer, serve } from "../support/hub_server.ts";
import { integers, uniform } from "../support/random.ts";
import type { CampaignOptions, CampaignRow } from "./campaign.ts";

const COUNT = 500;
const TOKEN = "secret";
const REFERENCE = parseHubReference("org/tiny")!;
const ROOT = "models--org--tiny";
/** More questions in one attempt are an endless loop. */
const MOST_REQUESTS = 600;
const CHILD = new URL("./hub_child.ts", import.meta.url).pathname;

type Bytes = Uint8Array<ArrayBuffer>;
type Random = () => number;
type FileFault = (request: Request, bytes: Bytes, random: Random, other: HubServer) => Response;
type ApiFault = (
  request: Request,
  path: string,
  random: Random,
  other: HubServer,
) => Response | Promise<Response>;

const pick = <T>(random: Random, items: readonly T[]): T => items[Math.floor(random() * items.length)]!;
const below = (random: Random, limit: number) => Math.floor(random() * limit);

/** Where the bytes that are asked for begin. */
function startOf(request: Request): number {
  return Number(/^bytes=(\d+)-$/.exec(request.headers.get("range") ?? "")?.[1] ?? 0);
}

/** The rest of a file from where it is asked for, as a server says it that means well. */
function rest(bytes: Bytes, from: number, sent: Bytes, headers: Record<string, string> = {}): Response {
  if (from === 0) return new Response(stream(sent), { headers });
  const range = { "content-range": `bytes ${from}-${bytes.length - 1}/${bytes.length}` };
  return new Response(stream(sent), { status: 206, headers: { ...range, ...headers } });
}

/** Bytes without a length told before, in pieces with pauses between them if asked for. */
function stream(bytes: Bytes, pieces = 1, pause = 0): ReadableStream<Bytes> {
  let at = 0;
  const step = Math.max(1, Math.ceil(bytes.length / pieces));
  return new ReadableStream({
    async pull(controller) {
      if (at >= bytes.length) return controller.close();
      if (pause > 0) await new Promise((resolve) => setTimeout(resolve, pause));
      controller.enqueue(bytes.slice(at, at += step));
    },
  });
}

function flipped(bytes: Bytes, random: Random): Bytes {
  const copy = bytes.slice();
  if (copy.length > 0) copy[below(random, copy.length)]! ^= 1 << below(random, 8);
  return copy;
}

const statuses = (random: Random) =>
  new Response("busy", {
    status: pick(random, [408, 429, 500, 502, 503, 504]),
    headers: random() < 0.3 ? { "retry-after": pick(random, ["1", "0", "30", "soon", "99999"]) } : {},
  });
const elsewhere = (request: Request, other: HubServer) =>
  Response.redirect(other.url + new URL(request.url).pathname + new URL(request.url).search);

const FILE_FAULTS: Readonly<Record<string, FileFault>> = {
  cut: (request, bytes, random) => {
    const from = startOf(request);
    return rest(bytes, from, bytes.slice(from, from + below(random, bytes.length - from + 1)));
  },
  "whole for a range": (_, bytes) => new Response(bytes),
  "other range": (request, bytes, random) => {
    const from = below(random, bytes.length + 1);
    const said = pick(random, [startOf(request), from, from + 1]);
    return rest(bytes, Math.max(1, said), bytes.slice(from));
  },
  "changed file": (request, bytes, random) => {
    const from = startOf(request);
    return rest(bytes, from, flipped(bytes, random).slice(from), { etag: `"${below(random, 1000)}"` });
  },
  "flipped byte": (request, bytes, random) => serve(request, flipped(bytes, random)),
  "more bytes": (_, bytes) => new Response(Uint8Array.from([...bytes, 1])),
  drip: (request, bytes) => {
    const from = startOf(request);
    return rest(bytes, from, new Uint8Array()).status === 206
      ? new Response(stream(bytes.slice(from), 5, 2), {
        status: 206,
        headers: { "content-range": `bytes ${from}-${bytes.length - 1}/${bytes.length}` },
      })
      : new Response(stream(bytes, 5, 2));
  },
  stall: () => new Response(new ReadableStream()),
  status: (_request, _bytes, random) => statuses(random),
  refusal: (_request, _bytes, random) =>
    new Response(null, { status: pick(random, [401, 403, 404, 410, 416, 204]) }),
  page: () => new Response("<html>please log in</html>"),
  loop: (request) => Response.redirect(request.url),
  "cross-host": (request, _bytes, _random, other) => elsewhere(request, other),
  "another protocol": (_request, _bytes, random) =>
    new Response(null, {
      status: 302,
      headers: { location: pick(random, ["file:///etc/passwd", "ftp://x/y", "http://[", "//"]) },
    }),
};

const LISTED = { type: "file", size: 2, oid: "a".repeat(40) };
const API_FAULTS: Readonly<Record<string, ApiFault>> = {
  status: (_request, _path, random) => statuses(random),
  refusal: (_request, _path, random) => new Response(null, { status: pick(random, [401, 403, 404]) }),
  "hostile sha": (_request, _path, random) =>
    Response.json({
      sha: pick<unknown>(random, ["../../../escaped", null, 7, "/etc", "a".repeat(39), [], {}, "..\\x"]),
    }),
  "hostile name": (_request, _path, random) =>
    Response.json([{
      ...LISTED,
      path: pick(random, ["../x", "/x", "a/../../../x", "C:\\x", "a\0b", "con", "x.", "//h/s", ""]),
    }]),
  "hostile hash": (_request, _path, random) =>
    Response.json([{
      ...LISTED,
      path: "config.json",
      oid: pick<unknown>(random, ["../../x", null, "A".repeat(40), 3]),
    }]),
  "wrong type": (_request, _path, random) =>
    Response.json(
      pick<unknown>(random, [
        null,
        [],
        {},
        [null],
        [{ type: "file" }],
        [{ ...LISTED, path: "a", size: -1 }],
        "x",
        3,
      ]),
    ),
  "no JSON": (_request, _path, random) => new Response(pick(random, ["<html>", "", "{", "[1,", "\0"])),
  "endless pages": (request, _path, random) =>
    Response.json([], { headers: { link: `<${request.url}&n=${below(random, 1e9)}>; rel="next"` } }),
  "same page": (request) => Response.json([], { headers: { link: `<${request.url}>; rel="next"` } }),
  loop: (request) => Response.redirect(request.url),
  "cross-host": (request, _path, _random, other) => elsewhere(request, other),
  stall: () => new Response(new ReadableStream()),
};

/** What is wrong with a cache before an attempt; `outside` is a folder and a file that are nobody's to change. */
const DAMAGES: Readonly<Record<string, (paths: Paths, random: Random) => void>> = {
  truncated: ({ blob }, random) => Deno.truncateSync(blob, below(random, Deno.statSync(blob).size + 1)),
  flipped: ({ blob }, random) => Deno.writeFileSync(blob, flipped(Deno.readFileSync(blob) as Bytes, random)),
  longer: ({ blob }) => Deno.writeFileSync(blob, Uint8Array.of(1), { append: true }),
  dangling: ({ blob }) => Deno.removeSync(blob),
  unfinished: ({ blob }, random) => {
    const bytes = Deno.readFileSync(blob);
    Deno.removeSync(blob);
    const part = bytes.slice(0, below(random, bytes.length + 1)) as Bytes;
    Deno.writeFileSync(`${blob}.incomplete`, random() < 0.5 ? part : flipped(part, random));
  },
  "old beginning": ({ root }) => Deno.writeTextFileSync(`${root}/blobs/${"b".repeat(64)}.incomplete`, "x"),
  "link astray": ({ link, victim }) => relink(link, victim),
  "link to itself": ({ link }) => relink(link, link.split("/").at(-1)!),
  "ref astray": ({ root }) => Deno.writeTextFileSync(`${root}/refs/main`, "../../escaped"),
  "listing cut": ({ root }) => {
    for (const { name } of Deno.readDirSync(`${root}/listings`)) {
      Deno.truncateSync(`${root}/listings/${name}`, 9);
    }
  },
  "beginning linked outside": ({ blob, victim }) => {
    Deno.removeSync(blob);
    Deno.symlinkSync(victim, `${blob}.incomplete`);
  },
  "blob linked outside": ({ blob, victim }) => relink(blob, victim),
};

interface Paths {
  readonly root: string;
  /** A file's link in the snapshot, and what it leads to. */
  readonly link: string;
  readonly blob: string;
  /** A file outside of the cache. */
  readonly victim: string;
}

function relink(link: string, target: string): void {
  Deno.removeSync(link);
  Deno.symlinkSync(target, link);
}

function makeRepository(random: Random): HubRepository {
  const sizes = [0, 1, 100, 3000, 20_000, 60_000];
  const file = () =>
    Uint8Array.from(integers(below(random, 2 ** 31), pick(random, sizes) + below(random, 3), 256));
  const paths = [
    "config.json",
    "tokenizer.json",
    "a.safetensors",
    "b.safetensors",
    "data/a b.txt",
    "x/y/é.bin",
    "x/z",
    "w",
  ];
  const files = Object.fromEntries(paths.map((path) => [path, file()]));
  const commit = Array.from({ length: 40 }, () => "0123456789abcdef"[below(random, 16)]).join("");
  return { kind: "model", name: "org/tiny", commit, files };
}

/** One schedule: some attempts among faults, then one without. @returns what was violated */
export async function runSchedule(seed: number, { kills }: { kills: boolean }): Promise<Schedule> {
  const random = uniform(seed);
  const repository = makeRepository(random);
  await using server = new HubServer([repository]);
  await using other = new HubServer([repository]);
  server.token = TOKEN;
  const counts: Record<string, number> = {};
  const faults: string[] = [];
  await withFolder(async (folder) => {
    const trial = new Trial(folder, repository, server, other, random, counts, faults);
    if (random() < 0.5) await trial.fill();
    const attempts = 1 + below(random, 3);
    for (let i = 0; i < attempts; i++) await trial.attempt(kills && random() < 0.3);
    await trial.end();
  });
  return { counts, faults };
}

interface Schedule {
  readonly counts: Readonly<Record<string, number>>;
  readonly faults: readonly string[];
}

class Trial {
  readonly cache: string;
  readonly root: string;
  readonly victim: string;
  readonly options: SnapshotOptions;

  constructor(
    readonly folder: string,
    readonly repository: HubRepository,
    readonly server: HubServer,
    readonly other: HubServer,
    readonly random: Random,
    readonly counts: Record<string, number>,
    readonly faults: string[],
  ) {
    this.cache = `${folder}/cache`;
    this.root = `${this.cache}/${ROOT}`;
    this.victim = `${folder}/victim`;
    Deno.writeTextFileSync(this.victim, "mine");
    this.options = {
      settings: { endpoint: server.url, token: TOKEN, cacheDir: this.cache, offline: false },
      wanted: (names) => names,
      thorough: true,
      wait: () => Promise.resolve(),
    };
  }

  async fill(): Promise<void> {
    await fetchSnapshot(REFERENCE, this.options);
    this.#damage();
  }

  /** One or two at a time fetch, or a process that is killed, while the server does what the schedule says. */
  async attempt(isKilled: boolean): Promise<void> {
    const { random, server } = this;
    const share = pick(random, [0.3, 0.6, 0.95]);
    const fileFaults = this.#drawn(FILE_FAULTS);
    const apiFaults = this.#drawn(API_FAULTS);
    const inApi = random() < 0.3;
    server.fault = (request, bytes) =>
      random() < share
        ? this.#one(FILE_FAULTS, fileFaults, (fault) => fault(request, bytes, random, this.other))
        : undefined;
    server.apiFault = (request, path) =>
      inApi && random() < share
        ? this.#one(API_FAULTS, apiFaults, (fault) => fault(request, path, random, this.other))
        : undefined;
    server.requests.length = 0;
    if (isKilled) await this.#kill();
    else {
      const both = random() < 0.2 ? 2 : 1;
      await Promise.all(
        Array.from({ length: both }, () => this.#fetch({ stallLimit: 200, requestLimit: 400 })),
      );
    }
    this.#check("after an attempt");
  }

  /** With all well again, everything is right. */
  async end(): Promise<void> {
    this.server.fault = undefined;
    this.server.apiFault = undefined;
    const isDone = await this.#fetch({});
    this.#check("at the end");
    if (!isDone) return;
    const left = names(this.root).filter((name) => /\.incomplete$|\.tmp-/.test(name));
    if (left.length > 0) this.faults.push(`left behind: ${left.join(", ")}`);
  }

  /** @returns whether it was fetched; if so, it must be right, and if not, there must be one clear line */
  async #fetch(changes: Partial<SnapshotOptions>): Promise<boolean> {
    try {
      const snapshot = await fetchSnapshot(REFERENCE, { ...this.options, ...changes });
      this.#count("fetched");
      for (const [name, bytes] of Object.entries(this.#asked(snapshot))) {
        const there = Deno.readFileSync(`${snapshot}/${name}`);
        if (there.length !== bytes.length || there.some((byte, i) => byte !== bytes[i])) {
          this.faults.push(`${name} is fetched and wrong`);
        }
      }
      return true;
    } catch (error) {
      this.#count("refused");
      const isLinkRefused = error instanceof UserError && /Refused the file name .*link/.test(error.message);
      if (!(error instanceof UserError) || error.message.includes("\n") || error.message.includes(TOKEN)) {
        this.faults.push(`not one clear line: ${error}`);
      } else if (changes.stallLimit === undefined && !isLinkRefused) {
        this.faults.push(`with all well: ${error.message}`);
      }
      return false;
    }
  }

  /** Of a snapshot of the true commit, all files. */
  #asked(snapshot: string): HubRepository["files"] {
    if (snapshot.endsWith(`/${this.repository.commit}`)) return this.repository.files;
    this.faults.push(`another snapshot: ${snapshot}`);
    return {};
  }

  async #kill(): Promise<void> {
    this.#count("killed");
    const child = new Deno.Command("deno", {
      args: [
        "run",
        "--quiet",
        "--no-check",
        "--allow-read",
        "--allow-write",
        "--allow-net=127.0.0.1",
        CHILD,
        this.server.url,
        this.cache,
      ],
      stdout: "piped",
      stderr: "null",
    }).spawn();
    const reader = child.stdout.getReader();
    await reader.read();
    await new Promise((resolve) => setTimeout(resolve, below(this.random, 80)));
    try {
      child.kill("SIGKILL");
    } catch {
      // It has ended.
    }
    await reader.cancel();
    await child.status;
  }

  #check(when: string): void {
    const { server, other, faults } = this;
    if (server.requests.length > MOST_REQUESTS) faults.push(`${when}: ${server.requests.length} questions`);
    if (other.requests.some(({ token }) => token !== null)) {
      faults.push(`${when}: the token was seen by another host`);
    }
    const outside = names(this.folder).filter((name) => !name.startsWith("cache/") && name !== "victim");
    if (outside.length > 0) faults.push(`${when}: outside of the cache: ${outside.join(", ")}`);
    if (Deno.readTextFileSync(this.victim) !== "mine") faults.push(`${when}: a file outside was written`);
    for (const name of names(`${this.root}/blobs`)) {
      if (name.includes(".") || this.#damaged.has(name)) continue;
      const bytes = Deno.readFileSync(`${this.root}/blobs/${name}`);
      const hash = name.length === 64
        ? createHash("sha256").update(bytes)
        : createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes);
      if (hash.digest("hex") !== name) faults.push(`${when}: the blob ${name} is wrong`);
    }
  }

  /** Blobs that this trial damaged: they may stay so until something is fetched. */
  readonly #damaged = new Set<string>();

  #damage(): void {
    const { random, root, victim } = this;
    for (let left = 1 + below(random, 2); left > 0; left--) {
      const link = `${root}/snapshots/${this.repository.commit}/${
        pick(random, Object.keys(this.repository.files))
      }`;
      const name = pick(random, Object.keys(DAMAGES));
      try {
        const blob = Deno.realPathSync(link);
        if (!blob.includes("/blobs/")) continue;
        this.#damaged.add(blob.split("/").at(-1)!);
        DAMAGES[name]!({ root, link, blob, victim }, random);
        this.#count(name);
      } catch (error) {
        // The first damage may have taken what the second one needs.
        if (!(error instanceof Deno.errors.NotFound || error instanceof Deno.errors.FilesystemLoop)) {
          throw error;
        }
      }
    }
  }

  /** One kind of fault, or any of them, for an attempt. */
  #drawn(all: Readonly<Record<string, unknown>>): readonly string[] {
    return this.random() < 0.5 ? [pick(this.random, Object.keys(all))] : Object.keys(all);
  }

  #one<T, R>(all: Readonly<Record<string, T>>, drawn: readonly string[], act: (fault: T) => R): R {
    const name = pick(this.random, drawn);
    this.#count(name);
    return act(all[name]!);
  }

  #count(what: string): void {
    this.counts[what] = (this.counts[what] ?? 0) + 1;
  }
}

/** Every file and link below a folder, by its path in it. */
function names(folder: string): string[] {
  const found: string[] = [];
  try {
    for (const { name, isDirectory } of Deno.readDirSync(folder)) {
      if (isDirectory) found.push(...names(`${folder}/${name}`).map((each) => `${name}/${each}`));
      else found.push(name);
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return found;
}

/** Runs the schedules one after the other. */
export async function* run({ count = COUNT, seed, say }: CampaignOptions): AsyncGenerator<CampaignRow> {
  const started = performance.now();
  const counts: Record<string, number> = {};
  const faults: string[] = [];
  for (let i = 0; i < count; i++) {
    const schedule = await runSchedule(seed + i, { kills: true });
    for (const [what, times] of Object.entries(schedule.counts)) counts[what] = (counts[what] ?? 0) + times;
    faults.push(...schedule.faults.map((fault) => `seed ${seed + i}: ${fault}`));
    if (i % 50 === 49) say(`hub: ${i + 1} of ${count}, ${faults.length} faults`);
  }
  counts["s in all"] = Math.round((performance.now() - started) / 1000);
  yield { part: "hub", tried: count, counts, faults };
}
