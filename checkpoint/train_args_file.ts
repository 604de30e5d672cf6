/** `train_args.yaml`: the settings that training leaves beside what it has trained. */
import { describeProblems } from "../data/problems.ts";
import { readYamlFile } from "../data/yaml.ts";
import { UserError } from "../errors.ts";
import { exists } from "./files.ts";

/** The file's name in a run's folder. */
export const TRAIN_ARGS = "train_args.yaml";

/** A run's settings as they were written, by whatever version. */
export interface TrainArgsFile {
  /** For messages. */
  readonly path: string;
  /** Plain data by option name, unchecked. */
  readonly values: Readonly<Record<string, unknown>>;
}

/**
 * Reads the settings that an adapter or model was trained with.
 *
 * @param folder what was trained: a run's folder, or one of its checkpoints, whose settings lie in the run's
 * @returns undefined where there are none, as with adapters from elsewhere
 * @throws {UserError} if the file cannot be read, or is no map of settings
 */
export async function readTrainArgs(folder: string): Promise<TrainArgsFile | undefined> {
  const isCheckpoint = /(^|[/\\])checkpoint-\d+[/\\]*$/.test(folder);
  for (const place of isCheckpoint ? [folder, `${folder}/..`] : [folder]) {
    const path = `${place}/${TRAIN_ARGS}`;
    if (!await exists(path)) continue;
    const { entries, problems } = await readYamlFile(path);
    if (problems.length > 0) throw new UserError(describeProblems(`"${path}"`, problems));
    return { path, values: Object.fromEntries(entries.map(({ key, value }) => [key, value])) };
  }
  return undefined;
}
