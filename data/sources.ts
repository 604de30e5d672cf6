/** The files that `train_file` and `train_data` name, and how much of each is taken. */
import { UserError } from "../errors.ts";

/** One entry of `train_data`. */
export interface DataSource {
  /** File or folder. */
  readonly path: string;
  /** Rows taken at random, where the file has more. */
  readonly most?: number | undefined;
  /** Share of the mix, where weights are given. */
  readonly weight?: number | undefined;
}

/** Options for all entries of `train_data`. */
export interface SourceOptions {
  /** The folder that `long-llm:` stands for. */
  readonly dataRoot?: string | null;
  /** Shares of the entries in the mix; all rows of all unless given. */
  readonly weights?: readonly number[] | null;
}

/** Long-LLM's mark of a path below `data_root`. */
const ROOTED = "long-llm:";

/**
 * Reads entries such as `long-llm:redpajama/train.json[5000]`: the mark stands for `data_root`, and a number in brackets
 * at the end takes that many rows at random (Long-LLM, `src/data.py`).
 *
 * @throws {UserError} if the mark is used without `data_root`, brackets hold no number, or there are not as many weights
 */
export function parseSources(
  entries: readonly string[],
  { dataRoot = null, weights = null }: SourceOptions = {},
): DataSource[] {
  if (weights && weights.length !== entries.length) {
    throw new UserError(
      `train_data_weights: there are ${weights.length} weights for ${entries.length} entries of train_data`,
      { kind: "usage" },
    );
  }
  return entries.map((entry, i) => {
    const [, name, count] = /^(.*?)(?:\[([^\][]*)\])?$/s.exec(entry)!;
    if (count !== undefined && !/^[1-9]\d*$/.test(count)) {
      throw new UserError(
        `train_data: "${entry}" must end with a number of rows in brackets, as in train.json[5000]`,
        {
          kind: "usage",
        },
      );
    }
    return {
      path: rooted(name!, dataRoot),
      most: count === undefined ? undefined : Number(count),
      weight: weights?.[i],
    };
  });
}

function rooted(name: string, root: string | null): string {
  if (!name.startsWith(ROOTED)) return name;
  if (root === null) {
    throw new UserError(`train_data: "${name}" begins with ${ROOTED}, so data_root must say where that is`, {
      kind: "usage",
    });
  }
  return `${root.replace(/(?<!\/)\/+$/, "")}/${name.slice(ROOTED.length).replace(/^\/+/, "")}`;
}
