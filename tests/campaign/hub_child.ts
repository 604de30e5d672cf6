/** Fetches a snapshot in a process of its own, to be killed: `hub_child.ts ENDPOINT CACHE`. Says when it begins. */
import { fetchSnapshot } from "../../hub/hub.ts";
import { parseHubReference } from "../../hub/reference.ts";

const [endpoint, cacheDir] = Deno.args;
const say = (text: string) => Deno.stdout.writeSync(new TextEncoder().encode(`${text}\n`));
say("begins");
await fetchSnapshot(parseHubReference("org/tiny")!, {
  settings: { endpoint: endpoint!, token: "secret", cacheDir: cacheDir!, offline: false },
  wanted: (names) => names,
  wait: () => Promise.resolve(),
});
say("ends");
