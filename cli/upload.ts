/** `upload`: an adapter or model to the hub, with a model card. */
import { formatCount } from "../text.ts";
import { UserError } from "../errors.ts";
import type { ModelConfig } from "../model/model_config.ts";
import { text } from "../train_args/values.ts";
import {
  booleanFlag,
  type BuiltCommand,
  newCommand,
  optionalFlag,
  requiredFlag,
  requiredPath,
} from "./flags.ts";
import { formatJson, formatRecord } from "./format.ts";
import type { Io } from "./io.ts";
import { modelFolderOf } from "./places.ts";

/** The command. */
export function build(summary: string, io: Io): BuiltCommand {
  return newCommand("upload", summary, io, {
    examples: ["upload --path output/long --name me/long"],
    usesGpu: false,
  })
    .addOption(requiredPath("path", "folder of an adapter, of a model, or of a finished run"))
    .addOption(requiredFlag("name", "org/name on the hub; made if there is none", text("name on the hub")))
    .addOption(
      optionalFlag(
        "base_model",
        "an adapter's base model by its name on the hub",
        text("name on the hub"),
        "as the files say",
      ),
    )
    .addOption(booleanFlag("private", "make the repository private", false))
    .action(async ({ json, path: given, name, base_model, private: isPrivate }) => {
      const path = await modelFolderOf(io, given);
      const [{ hubSettings }, { hubHasFile, uploadFiles }, { preparePublication, textFile }] = await Promise
        .all([
          import("../hub/settings.ts"),
          import("../hub/upload.ts"),
          import("../export/publish.ts"),
        ]);
      const repository = repositoryOf(name);
      const settings = hubSettings((variable) => Deno.env.get(variable));
      const { kind, files, card } = await preparePublication(path, repository, {
        baseModel: base_model ?? undefined,
        baseConfig: await baseConfigOf(io, path, base_model),
      });
      // A card that somebody wrote on the hub stays.
      const addsCard = card !== undefined && !await hubHasFile(repository, "README.md", settings);
      const sent = addsCard ? [...files, textFile("README.md", card)] : files;
      const url = await uploadFiles(repository, sent, {
        settings,
        isPrivate,
        title: `Upload ${kind} made with Longreach`,
        onProgress: (what, file) => io.err(file === undefined ? what : `${what} ${file}`),
      });
      const names = sent.map((file) => file.name).sort();
      io.out(
        json ? formatJson({ path, name: repository, kind, files: names, url }) : formatRecord({
          uploaded: `${kind} of ${formatCount(names.length)} files to ${repository}: ${names.join(", ")}`,
          at: url,
        }),
      );
    });
}

function repositoryOf(name: string): string {
  if (/^[A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*$/.test(name)) return name;
  throw new UserError(`--name: must be org/name with letters, digits, ., - and _, got "${name}"`, {
    kind: "usage",
  });
}

/** The base model's config.json, for the card: from here, or from the hub; without it the card tells less. */
async function baseConfigOf(io: Io, path: string, given: string | null): Promise<ModelConfig | undefined> {
  const { readTrainArgs } = await import("../checkpoint/train_args_file.ts");
  const trained = (await readTrainArgs(path))?.values.model_name_or_path;
  if (typeof trained !== "string") return undefined;
  // The name given may be all that another machine has of it.
  const isHere = await Deno.stat(trained).then(() => true, () => false);
  const place = isHere ? trained : given ?? trained;
  try {
    const [{ locate }, { readConfig }] = await Promise.all([
      import("./hub.ts"),
      import("../model/config.ts"),
    ]);
    return await readConfig(await locate(io, place, "config"));
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    io.err(`The card does not tell RoPE scaling: ${error.message}`);
    return undefined;
  }
}
