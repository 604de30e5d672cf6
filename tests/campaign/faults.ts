/** What goes wrong around a command: the disk, and the hub and the way to it. */
import { run as runFiles, SUBJECTS } from "./file_faults.ts";
import type { Campaign, CampaignOptions, CampaignRow } from "./campaign.ts";

const PARTS: Readonly<Record<string, () => Promise<Campaign>>> = {
  ...Object.fromEntries(SUBJECTS.map(({ part }) => [part, () => Promise.resolve(ofDisk(part))])),
  hub: () => import("./hub.ts"),
};

/** The operations of one command on the disk. */
function ofDisk(part: string): Campaign {
  return { run: (options) => runFiles({ ...options, only: part }) };
}

/** Runs the parts one after the other. @throws {Error} if `only` is none of them */
export async function* run(options: CampaignOptions): AsyncGenerator<CampaignRow> {
  const { only } = options;
  const names = Object.keys(PARTS).filter((name) => only === undefined || name === only);
  if (names.length === 0) {
    throw new Error(`There is no part "${only}": they are ${Object.keys(PARTS).join(", ")}`);
  }
  for (const name of names) yield* (await PARTS[name]!()).run(options);
}
