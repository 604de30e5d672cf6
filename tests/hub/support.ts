import { fetchSnapshot, type SnapshotOptions } from "../../hub/hub.ts";
import { parseHubReference } from "../../hub/reference.ts";
import { modelFiles } from "../../hub/wanted.ts";
import { withFolder } from "../support/files.ts";
import { type HubRepository, HubServer } from "../support/hub_server.ts";
import { integers } from "../support/random.ts";

export const COMMIT = "0123456789abcdef0123456789abcdef01234567";
export const WEIGHTS = Uint8Array.from(integers(8, 50_000, 256));
export const MODEL: HubRepository = {
  kind: "model",
  name: "org/tiny",
  commit: COMMIT,
  files: {
    "config.json": new TextEncoder().encode('{"model_type": "llama"}'),
    "tokenizer.json": new TextEncoder().encode("{}"),
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": Uint8Array.of(1, 2, 3),
    "README.md": new TextEncoder().encode("# tiny"),
  },
};
export const REFERENCE = parseHubReference("org/tiny")!;

/** What a test of the hub works with. */
export interface TestHub {
  readonly server: HubServer;
  /** Waiting takes no time and is noted. */
  readonly options: SnapshotOptions;
  /** A folder that holds nothing but the cache. */
  readonly outside: string;
  readonly cache: string;
  readonly notes: string[];
  readonly waits: number[];
  fetch(changes?: Partial<SnapshotOptions>): Promise<string>;
}

/** Runs with a server and an empty cache. */
export async function withHub(
  run: (hub: TestHub) => Promise<void>,
  repositories: readonly HubRepository[] = [MODEL],
): Promise<void> {
  await withFolder(async (outside) => {
    await using server = new HubServer(repositories);
    const [notes, waits]: [string[], number[]] = [[], []];
    const cache = `${outside}/cache`;
    const options: SnapshotOptions = {
      settings: { endpoint: server.url, token: undefined, cacheDir: cache, offline: false },
      wanted: modelFiles,
      wait: (milliseconds) => Promise.resolve(void waits.push(milliseconds)),
      onNote: (text) => notes.push(text),
    };
    const fetch = (changes: Partial<SnapshotOptions> = {}) =>
      fetchSnapshot(REFERENCE, { ...options, ...changes });
    await run({ server, options, outside, cache, notes, waits, fetch });
  });
}

/** Every file and link below a folder, by its path in it; none where there is no such folder. */
export function tree(folder: string): string[] {
  const names: string[] = [];
  try {
    for (const { name, isDirectory } of Deno.readDirSync(folder)) {
      if (isDirectory) names.push(...tree(`${folder}/${name}`).map((each) => `${name}/${each}`));
      else names.push(name);
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return names.sort();
}
