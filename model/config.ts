import { quote } from "../text.ts";
import { readJson } from "../checkpoint/files.ts";
import { FILE_LIMITS, ifThere } from "../data/file_bytes.ts";
import { UserError } from "../errors.ts";
import { architectureNamed, ARCHITECTURES } from "./architectures.ts";
import { problemOfSizes, requireWeights } from "./load/fits.ts";
import type { ModelConfig } from "./model_config.ts";
import { dtypeNotes } from "./number_formats.ts";
import { contextLength } from "./positions.ts";

/**
 * Reads and checks `config.json` of a model folder, also against the headers of the weights beside it.
 * @throws {UserError} if it is missing, not JSON, of another architecture, its numbers do not fit together, or the
 *   folder's weights are of another model or damaged
 */
export async function readConfig(folder: string): Promise<ModelConfig> {
  const path = `${folder}/config.json`;
  const raw = await ifThere(readJson(path, FILE_LIMITS.config));
  if (raw === undefined) {
    throw new UserError(`Cannot load the model "${folder}": it has no config.json. Check the path`);
  }
  const config = parseConfig(raw, path);
  await requireWeights(folder, config);
  return config;
}

/** Checks the content of a `config.json`; `path` is for messages. */
export function parseConfig(raw: unknown, path: string): ModelConfig {
  const modelType = (raw as { model_type?: unknown } | null)?.model_type;
  const architecture = architectureNamed(modelType);
  if (!architecture) {
    const known = ARCHITECTURES.flatMap(({ modelTypes }) => modelTypes);
    throw new UserError(
      `Cannot load "${path}": its model_type is ${quote(modelType)}; models of type ${
        known.join(", ")
      } can be loaded`,
    );
  }
  const given = raw as Readonly<Record<string, unknown>>;
  refuseQuantised(given, path);
  const config = architecture.parseConfig(given, path);
  const problem = problemOfSizes(config, contextLength(config));
  if (problem !== undefined) throw new UserError(`Cannot use "${path}": ${problem}`);
  return { ...config, notes: [...config.notes, ...dtypeNotes(given)] };
}

/** Whether a `config.json` says that bitsandbytes packed the weights to 4 bits. */
export function isPackedIn4bit({ quantization_config: form }: Readonly<Record<string, unknown>>): boolean {
  if (typeof form !== "object" || form === null) return false;
  const { quant_method: method = "bitsandbytes", load_in_4bit, _load_in_4bit } = form as Record<
    string,
    unknown
  >;
  return method === "bitsandbytes" && (load_in_4bit === true || _load_in_4bit === true);
}

/** @throws {UserError} if the weights are packed by anything but bitsandbytes in 4 bits */
function refuseQuantised(raw: Readonly<Record<string, unknown>>, path: string): void {
  const { quantization_config: form, quantization } = raw;
  if (typeof quantization === "object" && quantization !== null) {
    throw new UserError(
      `Cannot load "${path}": its weights are quantised by MLX. Take the model in 16 bits and set load_in_4bit`,
    );
  }
  if (typeof form !== "object" || form === null || isPackedIn4bit(raw)) return;
  const { quant_method: method = "bitsandbytes" } = form as Record<string, unknown>;
  throw new UserError(
    `Cannot load "${path}": its weights are quantised by ${
      method === "bitsandbytes" ? "bitsandbytes in 8 bits" : quote(method)
    }. Take the model in 16 bits and set load_in_4bit, or one that bitsandbytes quantised to 4`,
  );
}
