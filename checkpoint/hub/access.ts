import type { HubSettings } from "./settings.ts";

/**
 * How `@huggingface/hub` is told to reach the hub. Mirrors have tokens of their own kind, which the library would
 * refuse, so the header is ours; it goes to the hub alone, never to where large files are stored.
 */
export function access(
  { endpoint, token }: Pick<HubSettings, "endpoint" | "token">,
): { hubUrl: string; fetch: typeof fetch } {
  return {
    hubUrl: endpoint,
    fetch: (input, init) => {
      const headers = new Headers(init?.headers);
      const address = input instanceof Request ? input.url : String(input);
      const isHub = address === endpoint || address.startsWith(`${endpoint}/`);
      headers.delete("authorization");
      if (isHub && token !== undefined) headers.set("authorization", `Bearer ${token}`);
      return fetch(input, { ...init, headers });
    },
  };
}
