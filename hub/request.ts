/** One question to the hub, with its limits, tries and redirects: the same for its API and for its files. */
import { UserError } from "../errors.ts";
import type { HubSettings } from "./settings.ts";

/** Time limits for the hub. Tests hand in shorter ones, and a `wait` that takes no time. */
export interface HubPatience {
  /** Milliseconds for one question to the API, from asking to the answer's last byte. */
  readonly requestLimit: number;
  /** Milliseconds without a byte after which a connection is given up. */
  readonly stallLimit: number;
  /** Milliseconds before the second try; doubled for each one more. */
  readonly retryDelay: number;
  readonly wait: (milliseconds: number) => Promise<void>;
}

/** Defaults. */
export const PATIENCE: HubPatience = {
  requestLimit: 60_000,
  stallLimit: 30_000,
  retryDelay: 1000,
  wait: (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds)),
};

/** Tries in a row that bring nothing before giving up. */
const TRIES = 5;
const MOST_REDIRECTS = 10;
/** A hub that asks to wait for longer is not waited for. */
const LONGEST_WAIT = 300_000;
/** Longest pause that doubling leads to, in milliseconds. */
const LONGEST_BACKOFF = 30_000;
const LARGEST_ANSWER = 2 ** 25;

/** Context of a question to the hub. */
export interface Asking {
  readonly settings: Pick<HubSettings, "endpoint" | "token">;
  readonly patience: HubPatience;
  /** For messages: `org/name` or `org/name/file`. */
  readonly label: string;
  /** Told before each wait, with its milliseconds. */
  readonly onRetry?: ((text: string, pause: number) => void) | undefined;
}

/** The hub does not answer, or not now: what another try, or the cache, may mend. */
export class HubUnavailable extends Error {
  constructor(
    message: string,
    { cause, retryAfter }: { cause?: unknown; retryAfter?: number | undefined } = {},
  ) {
    super(message, { cause });
    this.retryAfter = retryAfter;
  }
  /** Milliseconds that the hub asks to wait. */
  readonly retryAfter: number | undefined;
}

/** An answer that says that a range begins past the file's end. */
export class PastTheEnd extends HubUnavailable {}

/**
 * Runs `attempt` until it succeeds: up to `TRIES` times, with growing pauses that differ from client to
 * client, or those that the hub asks for.
 *
 * @param advanced whether the failed attempt brought something, which makes it the first of a new row
 * @throws {HubUnavailable} of the last try; other errors at once
 */
export async function withTries<T>(
  asking: Asking,
  attempt: () => Promise<T>,
  advanced: () => boolean = () => false,
): Promise<T> {
  const { patience, label, onRetry } = asking;
  for (let failures = 0;;) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof HubUnavailable)) throw error;
      failures = advanced() ? 1 : failures + 1;
      if (failures >= TRIES) throw error;
      const pause = error.retryAfter ??
        Math.min(patience.retryDelay * 2 ** (failures - 1), LONGEST_BACKOFF) * (0.75 + Math.random() / 2);
      if (pause > LONGEST_WAIT) {
        const seconds = Math.ceil(pause / 1000);
        throw new HubUnavailable(`${error.message} and asks to wait for ${seconds} s`, { cause: error });
      }
      onRetry?.(`${label}: ${error.message}; trying again in ${(pause / 1000).toFixed(1)} s`, pause);
      await patience.wait(pause);
    }
  }
}

/**
 * Asks once and follows redirects by hand, so that the token goes to the hub alone and never from https to http.
 *
 * @param headers besides the token
 * @returns an answer of the statuses 200 to 299; its body is the caller's to read
 * @throws {HubUnavailable} if there is no answer, or one that may be another the next time
 * @throws {UserError} if the hub refuses
 */
export async function ask(
  address: string,
  asking: Asking,
  { headers = {}, signal }: { headers?: Readonly<Record<string, string>>; signal: AbortSignal },
): Promise<Response> {
  const { settings, label } = asking;
  let at = addressOf(address, undefined, label);
  for (let hop = 0; hop <= MOST_REDIRECTS; hop++) {
    const response = await send(at, asking, headers, signal);
    const location = response.headers.get("location");
    if (response.ok) return response;
    await response.body?.cancel().catch(() => {});
    if (response.status >= 300 && response.status < 400 && location) {
      const next = addressOf(location, at, label);
      if (next.protocol !== "https:" && next.protocol !== at.protocol) {
        throw new UserError(
          `Cannot download ${label}: the hub redirects to "${next.protocol}//${next.host}"`,
        );
      }
      at = next;
      continue;
    }
    throw refusalOf(response, label, settings);
  }
  throw new UserError(`Cannot download ${label}: the hub redirects more than ${MOST_REDIRECTS} times`);
}

function addressOf(text: string, base: URL | undefined, label: string): URL {
  const url = URL.parse(text, base);
  if (url !== null) return url;
  throw new UserError(`Cannot download ${label}: the hub redirects to an address that is none`);
}

async function send(
  at: URL,
  asking: Asking,
  headers: Readonly<Record<string, string>>,
  signal: AbortSignal,
): Promise<Response> {
  const { endpoint, token } = asking.settings;
  // Bytes as they are kept: ranges, sizes and hashes are of those.
  const all = new Headers({ "accept-encoding": "identity", ...headers });
  if (token !== undefined && at.origin === new URL(endpoint).origin) {
    all.set("authorization", `Bearer ${token}`);
  }
  try {
    return await fetch(at, { headers: all, signal, redirect: "manual" });
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw forbiddenHost(at, asking, error);
    throw passing(error, signal);
  }
}

/** Hosts are granted before anything is asked, so one that only a redirect names may not be among them. */
export function forbiddenHost(at: URL, { label, settings }: Asking, error: Error): UserError {
  const remedy = at.origin === new URL(settings.endpoint).origin
    ? 'Start it as "deno task" or "./longreach", which grant what each command needs'
    : `If the hub keeps its files at "${at.host}", set LONGREACH_HUB_HOSTS=${at.host}`;
  return new UserError(`Cannot reach the hub for ${label}: ${error.message}. ${remedy}`, { cause: error });
}

/** The error of a failed connection. Addresses are left out: those of storage hold signatures. */
function passing(error: unknown, signal: AbortSignal): HubUnavailable {
  const reason = signal.aborted ? signal.reason : error;
  // fetch says only that it failed, and has the reason behind it.
  const told = reason instanceof Error && reason.cause instanceof Error ? reason.cause : reason;
  const text = told instanceof Error ? told.message : String(told);
  return new HubUnavailable(text.replace(/ for url \([^)]*\)/, ""), { cause: error });
}

function refusalOf(response: Response, label: string, { token }: Asking["settings"]): Error {
  const { status, headers } = response;
  if (status === 416) return new PastTheEnd("the server answers 416");
  return busyError(response) ??
    refusal(label, status, token !== undefined, headers.get("x-error-code") ?? undefined);
}

/** The error for a status that may be another the next time; undefined for others. */
export function busyError({ status, headers }: Response): HubUnavailable | undefined {
  if (status < 500 && status !== 429 && status !== 408) return undefined;
  return new HubUnavailable(`the server answers ${status}`, {
    retryAfter: retryAfter(headers.get("retry-after")),
  });
}

/** Milliseconds that the header `Retry-After` asks for: it holds seconds or a date. */
function retryAfter(header: string | null): number | undefined {
  if (header === null) return undefined;
  const seconds = /^\d{1,9}$/.test(header.trim()) ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.max(0, 1000 * seconds) : undefined;
}

/**
 * Explains a refusal, and what to do.
 * @param code what the hub itself calls it, in its header `X-Error-Code`
 */
function refusal(label: string, status: number, hasToken: boolean, code?: string): UserError {
  const action = `Cannot download ${label}: the hub answers ${status}`;
  if (code === "GatedRepo") {
    return new UserError(
      `${action}. Its terms must be accepted on its page` +
        (hasToken
          ? " by the owner of the token in HF_TOKEN"
          : "; then set HF_TOKEN to a token of that account"),
    );
  }
  if (code === "RevisionNotFound") {
    return new UserError(`${action}. It has no such revision: check the name behind @`);
  }
  if (status === 401 || status === 403) {
    const reason = code === "RepoNotFound"
      ? "There is none of this name, or it is private"
      : "It may be private or need its terms accepted";
    return new UserError(
      `${action}. ` +
        (hasToken
          ? `The token in HF_TOKEN may not read it: accept the model's terms on its page, or use another token`
          : `${reason}: check the name, or set HF_TOKEN to a token that may read it`),
    );
  }
  return new UserError(
    status === 404
      ? `Cannot download ${label}: the hub has no such file, model or revision. Check the name`
      : action,
  );
}

/** Ends a connection that brings nothing for a while, or is not done in time. */
export class Watch implements Disposable {
  readonly #abort = new AbortController();
  readonly #deadline: ReturnType<typeof setTimeout> | undefined;
  #stall: ReturnType<typeof setTimeout> | undefined;

  constructor(readonly stallLimit: number, requestLimit?: number) {
    this.#deadline = requestLimit === undefined
      ? undefined
      : setTimeout(() => this.#end(`no whole answer in ${requestLimit / 1000} s`), requestLimit);
    this.touch();
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** Something came. */
  touch(): void {
    clearTimeout(this.#stall);
    this.#stall = setTimeout(() => this.#end(`no data for ${this.stallLimit / 1000} s`), this.stallLimit);
  }

  /** The body's pieces as they come. @throws {HubUnavailable} if the connection ends or stalls */
  async *pieces({ body }: Response): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    const reader = body?.getReader();
    try {
      while (reader !== undefined) {
        const { done, value } = await reader.read().catch((error) => {
          throw passing(error, this.signal);
        });
        if (done) return;
        this.touch();
        yield value;
      }
    } finally {
      await reader?.cancel().catch(() => {});
    }
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#deadline);
    clearTimeout(this.#stall);
  }

  #end(reason: string): void {
    this.#abort.abort(new Error(reason));
  }
}

/** An answer of the hub's API. */
export interface JsonAnswer {
  readonly value: unknown;
  readonly headers: Headers;
}

/**
 * Asks the API, with all its tries.
 * @throws {HubUnavailable} if the hub cannot be asked now
 * @throws {UserError} if it refuses, or answers something else than JSON
 */
export function askJson(address: string, asking: Asking): Promise<JsonAnswer> {
  return withTries(asking, async () => {
    using watch = new Watch(asking.patience.stallLimit, asking.patience.requestLimit);
    const response = await ask(address, asking, {
      headers: { accept: "application/json" },
      signal: watch.signal,
    });
    const pieces: Uint8Array<ArrayBuffer>[] = [];
    let length = 0;
    for await (const piece of watch.pieces(response)) {
      length += piece.length;
      if (length > LARGEST_ANSWER) throw strangeAnswer(asking, `more than ${LARGEST_ANSWER} bytes`);
      pieces.push(piece);
    }
    const text = await new Blob(pieces).text();
    try {
      return { value: JSON.parse(text), headers: response.headers };
    } catch {
      const what = /^\s*</.test(text) ? "a web page" : text.trim() === "" ? "nothing" : "something else";
      throw strangeAnswer(asking, `${what} in place of JSON`);
    }
  });
}

/** The error for what no hub sends: a proxy's page, a broken mirror, somebody on the way. */
export function strangeAnswer({ label, settings }: Asking, what: string): UserError {
  return new UserError(
    `Cannot use ${label} of the hub: ${settings.endpoint} answers ${what}. Check HF_ENDPOINT, and whether a proxy or a ` +
      `login page answers in its place`,
  );
}
