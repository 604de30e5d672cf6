import { busyError, forbiddenHost, type HubPatience, PATIENCE, withTries } from "./request.ts";
import type { HubSettings } from "./settings.ts";

/** Longer texts are files, which take their time on the way. */
const LONGEST_QUESTION = 2 ** 20;

/**
 * Options that tell `@huggingface/hub` how to reach the hub. Mirrors have tokens of their own kind, which the library would
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
      const asking = { settings, patience, label: new URL(address).host };
      const send = (more: RequestInit = {}) =>
        fetch(input, { ...init, headers, ...more }).catch((error) => {
          if (!(error instanceof Deno.errors.NotCapable)) throw error;
          throw forbiddenHost(new URL(address), asking, error);
        });
      if (!isQuestion) return await send();
      return await withTries(asking, async () => {
        const response = await send({ signal: AbortSignal.timeout(patience.requestLimit) });
        const busy = busyError(response);
        if (busy) await response.body?.cancel();
        if (busy) throw busy;
        return response;
      });
    },
  };
}
