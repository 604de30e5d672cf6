/**
 * Lets in programs and pages of this machine, or who has the key. A page of another site that makes its name point to
 * this machine is kept out by the Host that it sends; binding to the loopback address alone does not do that.
 */
import { createHash } from "../checkpoint/deps.ts";
import { ApiError } from "./errors.ts";

/** Address of the server, and who may come. */
export interface GateOptions {
  readonly hostname: string;
  readonly port: number;
  /** Names that clients may call it by besides addresses and `localhost`, as behind a proxy: `name` or `name:port`. */
  readonly allowedHosts: readonly string[];
  readonly apiKey: string | null;
}

const LOOPBACK: readonly string[] = ["127.0.0.1", "localhost", "[::1]", "::1"];

/** Tells whether an address is this machine's own, which no other one reaches. */
export function isLoopback(hostname: string): boolean {
  return LOOPBACK.includes(hostname);
}

/** Headers of every response: the page may load what comes from here alone, and stands in no other page. */
export const SECURITY_HEADERS = {
  "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "referrer-policy": "no-referrer",
  "cross-origin-resource-policy": "same-origin",
  "cross-origin-opener-policy": "same-origin",
  "cache-control": "no-store",
} as const;

/** Checks requests before anything of them is read. */
export class Gate {
  readonly #options: GateOptions;

  constructor(options: GateOptions) {
    this.#options = options;
  }

  /** @throws {ApiError} 403 unless it was sent to this server by name, and by no other site's page */
  checkSender({ headers, url }: Request): void {
    const host = headers.get("host") ?? "";
    // A request line with a whole address overrules the header.
    if (!this.#isAllowed(host) || !this.#isAllowed(URL.parse(url)?.host ?? "")) {
      throw new ApiError(403, "This Host is not served here: use the address that the server printed", {
        code: "host_not_allowed",
      });
    }
    const origin = headers.get("origin");
    const isForeign = headers.get("sec-fetch-site")?.match(/^(cross-site|same-site)$/) &&
      headers.get("sec-fetch-mode") !== "navigate";
    const isOwn = origin === null || /^https?:\/\/(.*)$/.exec(origin)?.[1] === host;
    if (!isOwn || isForeign) {
      throw new ApiError(403, "Pages of other sites may not use this server", { code: "origin_not_allowed" });
    }
  }

  /** @throws {ApiError} 401 without the key, where there is one */
  checkKey({ headers }: Request): void {
    const { apiKey } = this.#options;
    if (apiKey === null) return;
    const [, given = ""] = /^Bearer +(.*)$/i.exec(headers.get("authorization") ?? "") ?? [];
    if (isSame(given, apiKey)) return;
    throw new ApiError(401, "The API key is missing or wrong: send it as Authorization: Bearer KEY", {
      code: "invalid_api_key",
      headers: { "www-authenticate": "Bearer" },
    });
  }

  /** @throws {ApiError} 415 unless the body says that it is JSON: pages of other sites cannot send that unasked */
  checkType({ headers }: Request): void {
    const [type = ""] = (headers.get("content-type") ?? "").split(";");
    if (type.trim().toLowerCase() === "application/json") return;
    throw new ApiError(415, "The body must be JSON, with Content-Type: application/json");
  }

  #isAllowed(host: string): boolean {
    const [, name = "", port] = /^([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(\d{1,5}))?$/.exec(host.toLowerCase()) ??
      [];
    const { hostname, allowedHosts } = this.#options;
    if (name === "") return false;
    if (allowedHosts.includes(name) || allowedHosts.includes(host.toLowerCase())) return true;
    if (Number(port ?? 80) !== this.#options.port) return false;
    // No other site has an address for its name, nor this one.
    const isAddress = name.startsWith("[") || /^\d{1,3}(\.\d{1,3}){3}$/.test(name);
    return isLoopback(name) || (isAddress && !isLoopback(hostname));
  }
}

/** Compares in a time that tells nothing of where the texts differ. */
function isSame(a: string, b: string): boolean {
  const [x, y] = [a, b].map((text) => new Uint8Array(createHash("sha256").update(text).digest()));
  return x!.reduce((difference, byte, i) => difference | (byte ^ y![i]!), 0) === 0;
}
