import { UserError } from "../errors.ts";
import { join } from "../checkpoint/deps.ts";

/** Settings of the hub: host, token, cache. */
export interface HubSettings {
  /** Address, without a slash at its end. */
  readonly endpoint: string;
  /** The user's token, for what is not public. */
  readonly token: string | undefined;
  /** The folder that Python's `huggingface_hub` uses too. */
  readonly cacheDir: string;
  /** Nothing is asked of the network. */
  readonly offline: boolean;
}

/** The variables that are read; commands name them in their permissions. */
export const HUB_VARIABLES = [
  "HF_ENDPOINT",
  "HF_HOME",
  "HF_HUB_CACHE",
  "HF_HUB_OFFLINE",
  "HF_TOKEN",
  "HF_TOKEN_PATH",
  "HOME",
  "USERPROFILE",
  "XDG_CACHE_HOME",
] as const;

/**
 * Settings from the environment, as `huggingface_hub` reads them.
 * @throws {UserError} naming the variable that cannot be used, or without which the cache's place cannot be told
 */
export function hubSettings(env: (name: (typeof HUB_VARIABLES)[number]) => string | undefined): HubSettings {
  const user = env("HOME") || env("USERPROFILE");
  const inHome = (path: string): string => {
    if (!/^~($|[/\\])/.test(path)) return path;
    if (!user) throw noHome();
    return user + path.slice(1);
  };
  const set = (name: (typeof HUB_VARIABLES)[number]) => inHome(env(name) ?? "") || undefined;
  const home = set("HF_HOME") ?? join(set("XDG_CACHE_HOME") ?? inHome("~/.cache"), "huggingface");
  return {
    endpoint: readEndpoint(env("HF_ENDPOINT") || "https://huggingface.co"),
    token: checkedToken(env("HF_TOKEN")?.trim() || readToken(set("HF_TOKEN_PATH") ?? join(home, "token"))),
    cacheDir: set("HF_HUB_CACHE") ?? join(home, "hub"),
    offline: ["1", "ON", "YES", "TRUE"].includes((env("HF_HUB_OFFLINE") ?? "").toUpperCase()),
  };
}

function noHome(): UserError {
  return new UserError(
    "Cannot tell where the cache of the hub is: HOME is not set. Set it, or HF_HOME to a folder",
    { kind: "usage" },
  );
}

function readEndpoint(text: string): string {
  const url = URL.parse(text);
  if (
    url !== null && ["http:", "https:"].includes(url.protocol) && url.search + url.hash + url.username === ""
  ) {
    return text.replace(/(?<!\/)\/+$/, "");
  }
  throw new UserError(
    `HF_ENDPOINT: must be an address such as https://huggingface.co, got ${JSON.stringify(text)}`,
    { kind: "usage" },
  );
}

/** @throws {UserError} for what cannot stand in a header; the message does not show it */
function checkedToken(token: string | undefined): string | undefined {
  if (token === undefined || /^[\x21-\x7e]+$/.test(token)) return token;
  throw new UserError(
    "HF_TOKEN: must be one word of plain letters, digits and signs, as the hub's settings show it",
    {
      kind: "usage",
    },
  );
}

/** The token that `hf auth login` keeps. */
function readToken(path: string): string | undefined {
  try {
    // A pipe would be waited for.
    if (!Deno.statSync(path).isFile) return undefined;
    return Deno.readTextFileSync(path).trim() || undefined;
  } catch {
    return undefined;
  }
}
