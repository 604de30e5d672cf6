/**
 * The long trials that `docs/reliability.md` reports: `deno task campaign crash|fuzz|faults|serve|soak [--count N] [--seed N]
 * [--only NAME]`. Each is deterministic from its seed, and ends with 1 where anything was lost, corrupt, crashed or hung.
 * The everyday tests run a small share of the same code.
 */
import { Command } from "@commander-js/extra-typings";
import type { Campaign, CampaignOptions } from "./campaign.ts";

const CAMPAIGNS: Readonly<Record<string, () => Promise<Campaign>>> = {
  crash: () => import("./crash.ts"),
  faults: () => import("./faults.ts"),
  fuzz: () => import("./fuzz.ts"),
  serve: () => import("./serve.ts"),
  soak: () => import("./soak.ts"),
};

function wholeNumber(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new Error(`must be a whole number, got "${text}"`);
  return Number(text);
}

async function main(name: string, options: Omit<CampaignOptions, "say">): Promise<number> {
  const load = CAMPAIGNS[name];
  if (!load) throw new Error(`There is no campaign "${name}": they are ${Object.keys(CAMPAIGNS).join(", ")}`);
  const encoder = new TextEncoder();
  const say = (line: string) => void Deno.stdout.writeSync(encoder.encode(`${line}\n`));
  say(`${name}, seed ${options.seed}, ${new Date().toISOString().slice(0, 10)}, Deno ${Deno.version.deno}`);
  let [parts, faults] = [0, 0];
  for await (const row of (await load()).run({ ...options, say })) {
    const counts = Object.entries(row.counts).map(([what, count]) => `, ${count} ${what}`).join("");
    say(`${row.part}: ${row.tried} tried${counts}, ${row.faults.length} faults`);
    for (const fault of row.faults) say(`  ${fault}`);
    faults += row.faults.length;
    parts++;
  }
  if (parts === 0) throw new Error(`${name} has no part "${options.only}"`);
  say(faults === 0 ? "no faults" : `${faults} faults`);
  return faults === 0 ? 0 : 1;
}

if (import.meta.main) {
  await new Command("campaign")
    .argument("<name>", Object.keys(CAMPAIGNS).join(", "))
    .option("--count <n>", "trials of each part; the full size unless given", wholeNumber)
    .option("--seed <n>", "where random choices start", wholeNumber, 20_261_126)
    .option("--only <part>", "one part alone")
    .action(async (name, { count, seed, only }) => Deno.exit(await main(name, { count, seed, only })))
    .parseAsync(["deno", "campaign", ...Deno.args]);
}
