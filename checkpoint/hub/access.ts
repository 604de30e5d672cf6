import { busyError, type HubPatience, PATIENCE, withTries } from "./request.ts";
import type { HubSettings } from "./settings.ts";

/** Longer texts are files, which take their time on the way. */
const LONGEST_QUESTION = 2 ** 20;

/**
 * How `@huggingface/hub` is told to reach the hub. Mirrors have tokens of their own kind, which the library would
 * refuse, so the header is ours; it goes to the hub alone, never to where large files are stored. Questions have a
 * limit, and a busy hub is asked again.
 */
export function access(
  { endpoint, token }: Pick<HubSettings, "endpoint" | "token">,
  patience: HubPatience = PATIENCE,
): { hubUrl: string; fetch: typeof fetch } {
  const settings = { endpoint, token };
  return {
    hubUrl: endpoint,
    fetch: async (input, init = {}) => {
      const headers = new Headers(init.headers);
      const address = input instanceof Request ? input.url : String(input);
      const isHub = address === endpoint || address.startsWith(`${endpoint}/`);
      headers.delete("authorization");
      if (isHub && token !== undefined) headers.set("authorization", `Bearer ${token}`);
      const { body } = init;
      const isQuestion = body === undefined || (typeof body === "string" && body.length < LONGEST_QUESTION);
      if (!isQuestion) return await fetch(input, { ...init, headers });
      return await withTries({ settings, patience, label: new URL(address).host }, async () => {
        const signal = AbortSignal.timeout(patience.requestLimit);
        const response = await fetch(input, { ...init, headers, signal });
        const busy = busyError(response);
        if (busy) await response.body?.cancel();
        if (busy) throw busy;
        return response;
      });
    },
  };
}
