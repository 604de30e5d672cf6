/**
 * The long trials that `docs/reliability.md` reports: `deno task campaign crash|fuzz|faults|soak [--count N] [--seed N]
 * [--only NAME]`. Each is deterministic from its seed, and ends with 1 where anything was lost, corrupt, crashed or hung.
 * The everyday tests run a small share of the same code.
 */
import { parseArgs } from "node:util";

/** What a campaign is asked for. */
export interface CampaignOptions {
  /** Trials of each part; the campaign's full size unless given. */
  readonly count: number | undefined;
  /** Where random choices start. */
  readonly seed: number;
  /** The part to run, by its name in the table; all unless given. */
  readonly only: string | undefined;
  /** Shows a line of progress. */
  readonly say: (line: string) => void;
}

/** What came of one part of a campaign, a row of its table. */
export interface CampaignRow {
  readonly part: string;
  readonly tried: number;
  /** What the part counts besides faults: kills inside a save, inputs accepted, megabytes grown. */
  readonly counts: Readonly<Record<string, number>>;
  /** One line for each fault: what was lost, corrupt, crashed or hung, and how to see it again. */
  readonly faults: readonly string[];
}

/** A campaign's file: `tests/campaign/<name>.ts`. */
export interface Campaign {
  run(options: CampaignOptions): AsyncIterable<CampaignRow>;
}

const CAMPAIGNS: Readonly<Record<string, () => Promise<Campaign>>> = {};

const USAGE = `deno task campaign ${Object.keys(CAMPAIGNS).join("|")} [--count N] [--seed N] [--only NAME]`;

function wholeNumber(name: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new Error(`--${name} must be a whole number, got "${text}". ${USAGE}`);
}

if (import.meta.main) {
  const { values, positionals } = parseArgs({
    args: Deno.args,
    allowPositionals: true,
    options: { count: { type: "string" }, seed: { type: "string" }, only: { type: "string" } },
  });
  const load = CAMPAIGNS[positionals[0] ?? ""];
  if (load === undefined || positionals.length !== 1) throw new Error(USAGE);
  const encoder = new TextEncoder();
  const say = (line: string) => void Deno.stdout.writeSync(encoder.encode(`${line}\n`));
  const seed = wholeNumber("seed", values.seed) ?? 20_261_126;
  say(`${positionals[0]}, seed ${seed}, ${new Date().toISOString().slice(0, 10)}, Deno ${Deno.version.deno}`);
  let faults = 0;
  const options = { count: wholeNumber("count", values.count), seed, only: values.only, say };
  for await (const row of (await load()).run(options)) {
    const counts = Object.entries(row.counts).map(([what, count]) => `, ${count} ${what}`).join("");
    say(`${row.part}: ${row.tried} tried${counts}, ${row.faults.length} faults`);
    for (const fault of row.faults) say(`  ${fault}`);
    faults += row.faults.length;
  }
  say(faults === 0 ? "no faults" : `${faults} faults`);
  Deno.exit(faults === 0 ? 0 : 1);
}
