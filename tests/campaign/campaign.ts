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
