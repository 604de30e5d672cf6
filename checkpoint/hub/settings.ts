import { join } from "../deps.ts";

/** How the hub is reached, and where its files are kept. */
export interface HubSettings {
  readonly endpoint: string;
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

/** Settings from the environment, as `huggingface_hub` reads them. */
export function hubSettings(env: (name: (typeof HUB_VARIABLES)[number]) => string | undefined): HubSettings {
  const user = env("HOME") ?? env("USERPROFILE") ?? ".";
  const home = env("HF_HOME") ?? join(env("XDG_CACHE_HOME") ?? join(user, ".cache"), "huggingface");
  return {
    endpoint: (env("HF_ENDPOINT") || "https://huggingface.co").replace(/(?<!\/)\/+$/, ""),
    token: env("HF_TOKEN")?.trim() || readToken(env("HF_TOKEN_PATH") ?? join(home, "token")),
    cacheDir: env("HF_HUB_CACHE") ?? join(home, "hub"),
    offline: ["1", "ON", "YES", "TRUE"].includes((env("HF_HUB_OFFLINE") ?? "").toUpperCase()),
  };
}

/** The token that `hf auth login` keeps. */
function readToken(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path).trim() || undefined;
  } catch {
    return undefined;
  }
}
