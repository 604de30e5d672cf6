import { adapterConfig, type AdapterOptions } from "../../checkpoint/peft.ts";
import { isSavedWhole, isTarget, loraRank, loraScaling, targetNames } from "../../checkpoint/peft_targets.ts";
import { assertEquals } from "../support/assert_close.ts";

/** The linears of two layers, by what sets them apart, and the head. */
const LINEARS = [0, 1, 11].flatMap((layer) =>
  ["self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj"].map((name) => `model.layers.${layer}.${name}`)
).concat("lm_head");

const short = (module: string) => module.replace(/^model\.layers\.(\d+)\.\w+\.(\w+)_proj$/, "$1:$2");

function targeted(options: Partial<AdapterOptions>): string {
  const config = adapterConfig({ r: 4, lora_alpha: 8, target_modules: null, ...options });
  return LINEARS.filter((module) => isTarget(config, module)).map(short).join(" ");
}

Deno.test("Targets are PEFT's: ends of names, words, expressions, layers, and what is left out", () => {
  const all = "0:q 0:v 0:up 1:q 1:v 1:up 11:q 11:v 11:up";
  // What check_target_module_exists() of PEFT 0.18 says of the same modules.
  const cases: [Partial<AdapterOptions>, string][] = [
    [{ target_modules: ["q_proj"] }, "0:q 1:q 11:q"],
    [{ target_modules: ["self_attn.q_proj", "up_proj"] }, "0:q 0:up 1:q 1:up 11:q 11:up"],
    [{ target_modules: ["layers.1.self_attn.q_proj"] }, "1:q"],
    [{ target_modules: ["1.self_attn.q_proj"] }, "1:q"],
    [{ target_modules: ["model.layers.11.mlp.up_proj", "lm_head"] }, "11:up lm_head"],
    [{ target_modules: ["proj", "attn.q_proj", "model"] }, ""],
    [{ target_modules: [] }, ""],
    [{ target_modules: "all-linear" }, all],
    [{ target_modules: "All-Linear" }, all],
    [{ target_modules: "q_proj" }, ""],
    [{ target_modules: ".*q_proj" }, "0:q 1:q 11:q"],
    [{ target_modules: String.raw`.*layers\.1.*(q|v)_proj` }, "1:q 1:v 11:q 11:v"],
    [{ target_modules: "(?!.*mlp).*_proj|lm_head" }, "0:q 0:v 1:q 1:v 11:q 11:v lm_head"],
    [{ target_modules: ["q_proj", "v_proj"], layers_to_transform: [1] }, "1:q 1:v"],
    [{ target_modules: ["q_proj"], layers_to_transform: [] }, "0:q 1:q 11:q"],
    [
      { target_modules: ["q_proj"], layers_to_transform: [0, 11], layers_pattern: ["h", "layers"] },
      "0:q 11:q",
    ],
    [{ target_modules: ["q_proj"], layers_to_transform: [0], layers_pattern: ["h"] }, ""],
    [{ target_modules: ["q_proj"], layers_to_transform: [1], layers_pattern: ["lay.*"] }, "1:q"],
    // A whole name is taken whatever the layers.
    [{ target_modules: ["model.layers.0.self_attn.q_proj", "v_proj"], layers_to_transform: [1] }, "0:q 1:v"],
    [{ target_modules: ["lm_head", "q_proj"], layers_to_transform: [1] }, "1:q lm_head"],
    [
      { target_modules: "all-linear", exclude_modules: ["up_proj", "layers.1.self_attn.q_proj"] },
      "0:q 0:v 1:v 11:q 11:v",
    ],
    [{ target_modules: ["q_proj", "up_proj"], exclude_modules: String.raw`.*\.(0|11)\..*` }, "1:q 1:up"],
    [{ target_modules: ["q_proj", "up_proj"], modules_to_save: ["mlp"] }, "0:q 1:q 11:q"],
    [{ target_modules: ["q_proj"], modules_to_save: ["model.layers.1.self_attn.q_proj"] }, "0:q 11:q"],
  ];
  for (const [options, wanted] of cases) assertEquals(targeted(options), wanted, JSON.stringify(options));
  const config = adapterConfig({ r: 4, lora_alpha: 8, target_modules: null, exclude_modules: ["v_proj"] });
  assertEquals(LINEARS.slice(0, 2).map((module) => isTarget(config, module)), [undefined, false]);
});

Deno.test("Ranks and alphas go by the first expression that fits the end of a name", () => {
  const config = adapterConfig({
    r: 16,
    lora_alpha: 32,
    target_modules: null,
    rank_pattern: { "layers.1.self_attn.q_proj": 4, "^model.*up_proj": 2, "(q|v)_proj": 8 },
    alpha_pattern: {
      [String.raw`.*layers\.0\..*(q_proj|v_proj)$`]: 64,
      "(?!x)v_proj": 8,
      "_proj": 1,
      "proj$": 1,
    },
  });
  const wanted: Record<string, [number, number]> = {
    "0:q": [8, 64 / 8],
    "0:v": [8, 64 / 8],
    "0:up": [2, 32 / 2],
    "1:q": [4, 32 / 4],
    "1:v": [8, 8 / 8],
    "11:q": [8, 32 / 8],
    "11:up": [2, 32 / 2],
  };
  for (const module of LINEARS) {
    const expected = wanted[short(module)];
    if (expected) assertEquals([loraRank(config, module), loraScaling(config, module)], expected, module);
  }
  assertEquals(loraScaling({ ...config, use_rslora: true }, LINEARS[3]!), 16);
});

Deno.test("targetNames() finds names that mean these modules and no other", () => {
  const linears = LINEARS.filter((name) => name !== "lm_head");
  const ofQ = linears.filter((name) => name.endsWith("q_proj"));
  assertEquals(targetNames(linears, LINEARS), ["q_proj", "up_proj", "v_proj"]);
  assertEquals(targetNames([...ofQ, linears[1]!], LINEARS), [linears[1]!, "q_proj"]);
  for (const some of [ofQ, [linears[1]!, linears[8]!], [...ofQ, linears[4]!], linears.slice(1)]) {
    const config = adapterConfig({ r: 4, lora_alpha: 8, target_modules: targetNames(some, LINEARS) });
    assertEquals(
      LINEARS.filter((module) => isTarget(config, module)),
      some.toSorted((a, b) => LINEARS.indexOf(a) - LINEARS.indexOf(b)),
    );
  }
});

Deno.test("isSavedWhole() is PEFT's rule: the name of the module, or of one around it, ends so", () => {
  const cases: [string, string, boolean][] = [
    ["model.embed_tokens", "embed_tokens", true],
    ["model.embed_tokens", "embed", false],
    ["model.layers.0.input_layernorm", "norm", true],
    ["model.layers.1.mlp.up_proj", "mlp", true],
    ["model.layers.1.mlp.up_proj", "layers.1", true],
    ["model.layers.11.mlp.up_proj", "layers.1", false],
    ["lm_head", "model.lm_head", false],
  ];
  for (const [module, name, wanted] of cases) {
    assertEquals(isSavedWhole(module, name), wanted, `${module} ${name}`);
  }
});
