/** `get_trainable_weights`: what LongLoRA trained, out of a checkpoint whose DeepSpeed state was merged. */
import { formatCount } from "../text.ts";
import { list } from "../train_args/values.ts";
import { type BuiltCommand, newCommand, requiredPath, valueFlag } from "./flags.ts";
import { formatJson, formatRecord } from "./format.ts";
import type { Io } from "./io.ts";

/** The command, with LongLoRA's flags. */
export function build(summary: string, io: Io): BuiltCommand {
  return newCommand("get_trainable_weights", summary, io, {
    examples: ["get_trainable_weights --checkpoint_path checkpoint-1000 --save_path adapter"],
    usesGpu: false,
  })
    .addOption(
      requiredPath(
        "checkpoint_path",
        "folder with pytorch_model.bin (by zero_to_fp32.py) and adapter_config.json",
      ),
    )
    .addOption(
      valueFlag("trainable_params", "parts of the names of what was trained besides LoRA", list(), [
        "embed",
        "norm",
      ]).default(["embed", "norm"] as readonly string[], "embed,norm"),
    )
    .addOption(requiredPath("save_path", "folder for the adapter; must not exist or be empty"))
    .action(async ({ json, checkpoint_path, trainable_params, save_path }) => {
      const [
        { readTrainableWeights },
        { writeAdapter },
        { copyTokenizer },
        { tokenizerPlaces },
        { saveFolderAtomic },
      ] = await Promise.all([
        import("../checkpoint/trainable_weights.ts"),
        import("../checkpoint/peft.ts"),
        import("../checkpoint/save_model.ts"),
        import("../data/tokenizer_files.ts"),
        import("../checkpoint/store.ts"),
      ]);
      const adapter = await readTrainableWeights(checkpoint_path, trainable_params);
      const { paths } = await tokenizerPlaces(checkpoint_path);
      await saveFolderAtomic(save_path, async (folder) => {
        await writeAdapter(folder, adapter);
        await copyTokenizer(paths, folder);
      }, {
        note: (line) => io.err(line),
      });
      const linears = adapter.lora.size;
      const tensors = adapter.extra.size;
      io.out(
        json ? formatJson({ checkpoint_path, save_path, trainable_params, linears, tensors }) : formatRecord({
          saved: `${save_path}: LoRA on ${formatCount(linears)} linears, ${
            formatCount(tensors)
          } whole tensors`,
        }),
      );
    });
}
