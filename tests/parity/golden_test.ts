/**
 * Losses, gradients and updates against PyTorch in float64 (expected.json in tests/golden and in its folders of other
 * architectures).
 * PyTorch in float32 comes within 2e-7 of these losses; ours within 1e-7.
 */
import { readAdapter } from "../../checkpoint/peft.ts";
import type { Quantisation } from "../../kernels/quantisation.ts";
import { openWeights } from "../../checkpoint/weights.ts";
import { loadDataset } from "../../data/dataset.ts";
import { parseSources } from "../../data/sources.ts";
import { readTokenBin } from "../../data/bin.ts";
import { Tokenizer } from "../../data/tokenizer.ts";
import { windowStarts } from "../../eval/windows.ts";
import { Gpu, type GpuOptions } from "../../kernels/gpu.ts";
import { applyAdapter } from "../../model/lora.ts";
import { freeBatch, makeBatch } from "../../model/batch.ts";
import { extendContext } from "../../model/positions.ts";
import { parseConfig, readConfig } from "../../model/config.ts";
import type { LanguageModel } from "../../model/language_model.ts";
import { loadModel } from "../../model/load/load.ts";
import { Trainer } from "../../train/trainer.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { GOLDEN } from "../support/files.ts";

/** Families whose folders hold the same kinds of figures, with a tied head or not, and the data of Mistral. */
const FAMILIES = ["qwen3", "gemma2", "gemma3", "granite", "olmo2", "smollm3", "phi3"];

/** The same with experts: without figures in NF4, and with an adapter on the experts too. */
const WITH_EXPERTS = ["mixtral", "qwen3_moe"];

const [llama, neox, ...others] = await Promise.all(
  ["", "neox/", "mistral/", ...[...FAMILIES, ...WITH_EXPERTS].map((name) => `${name}/`)].map(async (folder) =>
    JSON.parse(await Deno.readTextFile(`${GOLDEN}/${folder}expected.json`))
  ),
);
/** Figures under names of their own. */
const renamed = (figures: Record<string, unknown>, folder: string) =>
  Object.fromEntries(Object.entries(figures).map(([name, each]) => [name.replace("_", `_${folder}_`), each]));
/** The figures of a test: with config.json as transformers 5 writes it, those without `_v5`. */
const expectedOf = (name: string) => expected[name.replace(/_v5$/, "")];
const expected = Object.assign(
  { ...llama, ...neox },
  ...["mistral", ...FAMILIES, ...WITH_EXPERTS].map((name, i) => renamed(others[i], name)),
);

interface Setup {
  readonly folder: string;
  readonly length: number;
  readonly adapter?: string;
  /** "none" unless given. */
  readonly quantisation?: Quantisation;
  /** The file in config.json's place. */
  readonly configFile?: string;
  /** Keys of config.json in place of the file's. */
  readonly changes?: Readonly<Record<string, unknown>>;
  /** Substrings of the names of base weights that are trained; undefined to evaluate. */
  readonly trained?: readonly string[];
  /** Least that a binding must hold, where that is more than in {@linkcode WAYS}: 64 rows of logits. */
  readonly bindingBytes?: number;
  /** Most by which gradient norms differ, relatively; 1e-6 unless given. */
  readonly normTolerance?: number;
  /** Folder of data.bin and train.jsonl within tests/golden; that itself unless given. */
  readonly data?: string;
}

/** Four heads of 24 on a hidden size of 64, and a window of 40 tokens. */
const MISTRAL = family("mistral");

/**
 * A family's model. Of Gemma 2 PyTorch in float32 comes within 7e-6 of the gradient norms, of Mixtral transformers
 * within 3e-6.
 */
function family(folder: string): Setup {
  const model: Setup = { folder, length: 128, data: "mistral", bindingBytes: 64 * 320 * 4 };
  return folder === "gemma2" || folder === "mixtral" ? { ...model, normTolerance: 1e-5 } : model;
}

async function open(
  gpu: Gpu,
  { folder, length, adapter, quantisation = "none", configFile, changes, trained }: Setup,
): Promise<LanguageModel> {
  const { raw } = configFile
    ? { raw: JSON.parse(await Deno.readTextFile(`${GOLDEN}/${folder}/${configFile}`)) }
    : await readConfig(`${GOLDEN}/${folder}`);
  const config = extendContext(parseConfig({ ...raw, ...changes }, folder), length);
  const weights = await openWeights(`${GOLDEN}/${folder}`);
  const peft = adapter === undefined ? undefined : await readAdapter(`${GOLDEN}/${adapter}`);
  const model = await loadModel(gpu, weights, {
    config,
    format: "f32",
    quantisation,
    isTrained: (name) => trained?.some((part) => name.includes(part)) ?? false,
    ...(peft ? { replacements: peft.extra } : {}),
  });
  weights.close();
  if (peft) applyAdapter(model, peft, { isTrained: trained !== undefined });
  return model;
}

function assertRelative(label: string, actual: number, wanted: number, tolerance: number): void {
  const error = Math.abs(actual / wanted - 1);
  assert(
    error <= tolerance,
    `${label}: got ${actual}, expected ${wanted}, relative error ${error} over ${tolerance}`,
  );
}

const EVALUATIONS: Record<string, Setup & { step: number }> = {
  eval_mha_128: { folder: "mha", length: 128, step: 64 },
  eval_mha_64: { folder: "mha", length: 64, step: 64 },
  eval_mha_128_nf4: { folder: "mha", length: 128, step: 64, quantisation: "nf4-double" },
  eval_gqa_256: { folder: "gqa", length: 256, step: 200 },
  eval_adapter_128: { folder: "mha", length: 128, step: 64, adapter: "adapter" },
  eval_adapter_bin_128: { folder: "mha", length: 128, step: 64, adapter: "adapter-bin" },
  eval_mha_bin_128: { folder: "mha-bin", length: 128, step: 64 },
  eval_neox_128: { folder: "neox", length: 128, step: 64 },
  eval_neox_64: { folder: "neox", length: 64, step: 64 },
  eval_neox_sequential_128: {
    folder: "neox",
    length: 128,
    step: 64,
    changes: { use_parallel_residual: false },
  },
  eval_neox_tanh_128: { folder: "neox", length: 128, step: 64, changes: { hidden_act: "gelu_fast" } },
  eval_neox_nf4_128: { folder: "neox", length: 128, step: 64, quantisation: "nf4" },
  eval_mistral_128: { ...MISTRAL, step: 64 },
  eval_mistral_64: { ...MISTRAL, length: 64, step: 64 },
  eval_mistral_adapter_128: { ...MISTRAL, step: 64, adapter: "mistral/adapter" },
  eval_mistral_128_nf4: { ...MISTRAL, step: 64, quantisation: "nf4-double" },
  eval_mistral_128_v5: { ...MISTRAL, step: 64, configFile: "config-v5.json" },
  eval_qwen3_yarn_128: { ...family("qwen3"), step: 64, configFile: "config-yarn.json" },
  eval_gemma3_1b_64: { ...family("gemma3"), length: 64, step: 64, configFile: "config-1b.json" },
  eval_gemma3_1b_extended_128: { ...family("gemma3"), step: 64, configFile: "config-1b.json" },
  eval_phi3_64_v5: { ...family("phi3"), length: 64, step: 64, configFile: "config-v5.json" },
  eval_phi3_window_128: { ...family("phi3"), step: 64, configFile: "config-window.json" },
  eval_qwen3_moe_unnormalised_128: {
    ...family("qwen3_moe"),
    step: 64,
    configFile: "config-unnormalised.json",
  },
  eval_neox_adapter_128: { folder: "neox", length: 128, step: 64, adapter: "neox/adapter" },
};

for (const name of [...FAMILIES, ...WITH_EXPERTS]) {
  const setup = { ...family(name), step: 64 };
  EVALUATIONS[`eval_${name}_128`] = setup;
  EVALUATIONS[`eval_${name}_64`] = { ...setup, length: 64 };
  EVALUATIONS[`eval_${name}_adapter_128`] = { ...setup, adapter: `${name}/adapter` };
  if (WITH_EXPERTS.includes(name)) {
    EVALUATIONS[`eval_${name}_adapter_experts_128`] = { ...setup, adapter: `${name}/adapter-experts` };
  } else EVALUATIONS[`eval_${name}_128_nf4`] = { ...setup, quantisation: "nf4-double" };
  EVALUATIONS[`eval_${name}_128_v5`] = { ...setup, configFile: "config-v5.json" };
}

for (const [name, setup] of Object.entries(EVALUATIONS)) {
  Deno.test(`${name}: windows, loss and accuracy are PyTorch's`, async () => {
    using gpu = await Gpu.open({ poison: true });
    const model = await open(gpu, setup);
    const { length, step, data = "." } = setup;
    const tokens = await readTokenBin(`${GOLDEN}/${data}/data.bin`);
    const starts = windowStarts(tokens.length, length, step);
    let loss = 0;
    let hits = 0;
    for (const start of starts) {
      const device = model.upload(makeBatch([{ inputIds: tokens.slice(start, start + length) }]));
      const { losses, argmax } = await model.predict(device);
      freeBatch(device);
      loss += losses.reduce((sum, value) => sum + value, 0) / (length - 1) / starts.length;
      argmax.forEach((token, i) => hits += token === tokens[start + 1 + i] ? 1 : 0);
    }
    assertEquals(starts.length, expectedOf(name).windows, "windows");
    assertRelative("val_loss", loss, expectedOf(name).val_loss, 1e-6);
    assertRelative("val_acc", hits / length / starts.length, expectedOf(name).val_acc, 1e-12);
  });
}

const CURVES: Record<string, Setup & { groupSize?: number; ways?: readonly string[] | undefined }> = {
  train_full_s2: { folder: "mha", length: 128, trained: [""], groupSize: 32 },
  train_full_dense: { folder: "mha", length: 128, trained: [""] },
  train_lora_s2: { folder: "mha", length: 128, adapter: "adapter", trained: [], groupSize: 32 },
  train_qlora_plus_s2: {
    folder: "mha",
    length: 128,
    adapter: "adapter",
    quantisation: "nf4-double",
    trained: ["embed", "norm"],
    groupSize: 32,
  },
  train_gqa_full_s2: { folder: "gqa", length: 128, trained: [""], groupSize: 32 },
  train_neox_full_s2: { folder: "neox", length: 128, trained: [""], groupSize: 32 },
  train_neox_full_dense: { folder: "neox", length: 128, trained: [""] },
  train_neox_full_sequential_tanh_s2: {
    folder: "neox",
    length: 128,
    trained: [""],
    groupSize: 32,
    changes: { use_parallel_residual: false, hidden_act: "gelu_new" },
  },
  train_mistral_full_dense: { ...MISTRAL, trained: [""] },
  train_mistral_full_dense_v5: {
    ...MISTRAL,
    trained: [""],
    configFile: "config-v5.json",
    ways: ["checkpointed"],
  },
  train_mistral_lora_dense: { ...MISTRAL, adapter: "mistral/adapter", trained: [] },
  train_neox_lora_s2: { folder: "neox", length: 128, adapter: "neox/adapter", trained: [], groupSize: 32 },
  train_neox_qlora_plus_s2: {
    folder: "neox",
    length: 128,
    adapter: "neox/adapter",
    quantisation: "nf4",
    trained: ["embed", "norm"],
    groupSize: 32,
  },
};

/** The ways a step can be run, which must not change what it computes. */
const WAYS: Record<string, GpuOptions & { checkpointing: boolean; batches: 1 | 4 }> = {
  "checkpointed": { checkpointing: true, batches: 1 },
  "activations kept": { checkpointing: false, batches: 1 },
  "four micro-batches": { checkpointing: true, batches: 4 },
  "workgroup sharing": { checkpointing: true, batches: 1, sharing: "workgroup" },
  "bindings of 65 KiB": { checkpointing: true, batches: 1, maxBindingBytes: 66_560 },
};

for (const name of FAMILIES) {
  const whole = { ...family(name), trained: [""] };
  const lora = { ...family(name), trained: [], adapter: `${name}/adapter` };
  CURVES[`train_${name}_full_s2`] = { ...whole, groupSize: 32 };
  // What is new in a family goes all ways with S2-Attn; the other curves go natively and with small bindings.
  const ways = ["checkpointed", "bindings of 65 KiB"];
  CURVES[`train_${name}_full_dense`] = { ...whole, ways };
  CURVES[`train_${name}_full_dense_v5`] = { ...whole, configFile: "config-v5.json", ways: ["checkpointed"] };
  CURVES[`train_${name}_lora_s2`] = { ...lora, groupSize: 32 };
  CURVES[`train_${name}_lora_dense`] = { ...lora, ways };
  CURVES[`train_${name}_lora_plus_s2`] = { ...lora, trained: ["embed", "norm"], groupSize: 32, ways };
  CURVES[`train_${name}_qlora_s2`] = { ...lora, quantisation: "nf4-double", groupSize: 32 };
}

for (const name of WITH_EXPERTS) {
  const ways = ["checkpointed", "bindings of 65 KiB"];
  const whole = { ...family(name), trained: [""], ways };
  const lora = { ...family(name), trained: [], adapter: `${name}/adapter`, ways };
  CURVES[`train_${name}_full_s2`] = { ...whole, groupSize: 32 };
  CURVES[`train_${name}_full_dense`] = whole;
  CURVES[`train_${name}_lora_s2`] = { ...lora, groupSize: 32 };
  CURVES[`train_${name}_lora_dense`] = lora;
  CURVES[`train_${name}_lora_plus_s2`] = { ...lora, trained: ["embed", "norm"], groupSize: 32 };
  const experts = { ...lora, adapter: `${name}/adapter-experts`, groupSize: 32 };
  // Experts and LoRA on them go all ways in one of the two.
  CURVES[`train_${name}_lora_experts_s2`] = name === "qwen3_moe" ? { ...experts, ways: undefined } : experts;
}

for (const [name, setup] of Object.entries(CURVES)) {
  for (const [way, { checkpointing, batches, ...options }] of Object.entries(WAYS)) {
    if (setup.ways && !setup.ways.includes(way)) continue;
    Deno.test(`${name}: losses and gradient norms are PyTorch's, ${way}`, async () => {
      const larger = options.maxBindingBytes && setup.bindingBytes
        ? { maxBindingBytes: setup.bindingBytes }
        : {};
      using gpu = await Gpu.open({ poison: true, ...options, ...larger });
      const model = await open(gpu, setup);
      const tokenizer = await Tokenizer.load(`${GOLDEN}/${setup.folder}`);
      const { samples } = await loadDataset(
        parseSources([`${GOLDEN}/${setup.data ?? "."}/train.jsonl`]),
        tokenizer,
        {
          maxSeqLength: setup.length,
        },
      );
      const trainer = new Trainer(model, {
        maxGradNorm: 0.3,
        attention: () => ({ groupSize: setup.groupSize }),
        checkpointing,
        lossScaling: false,
        seed: 1,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        weightDecay: 0,
      });
      const micro = batches === 1 ? [makeBatch(samples)] : samples.map((sample) => makeBatch([sample]));
      for (const { step, loss, grad_norm } of expectedOf(name)) {
        const result = await trainer.step(micro, 1e-3);
        assert(result.applied, `step ${step} was skipped`);
        assertRelative(`loss of step ${step}`, result.loss, loss, 1e-6);
        assertRelative(
          `gradient norm of step ${step}`,
          result.gradNorm,
          grad_norm,
          setup.normTolerance ?? 1e-6,
        );
      }
    });
  }
}
