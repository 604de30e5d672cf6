/** What commands may do: exactly what their tasks grant, less what a call does not need, and each grant is needed. */
import config from "../../deno.json" with { type: "json" };
import { runCli } from "../../cli/main.ts";
import { hostsOf } from "../../cli/hub_hosts.ts";
import { dawnGrants, grantsOf, NEEDS, needsHub } from "../../cli/permissions.ts";
import { assert, assertEquals } from "../support/assert_close.ts";
import { GOLDEN, withFolder } from "../support/files.ts";
import { HubServer } from "../support/hub_server.ts";
import { HubUploads, serveUploads } from "../support/hub_uploads.ts";
import { makePdf } from "../support/make_pdf.ts";
import { assertIncludes } from "../support/text.ts";
import { MemoryIo } from "./memory_io.ts";

const ROOT = new URL("../..", import.meta.url).pathname;
const PROBE = new URL("../support/permission_probe.ts", import.meta.url).pathname;
type Name = keyof typeof NEEDS;
const NAMES = Object.keys(NEEDS) as Name[];
const posixTest = Deno.build.os === "windows" ? Deno.test.ignore : Deno.test;

interface Outcome {
  readonly code: number;
  readonly out: string;
  /** Lines on stderr, without the probe's. */
  readonly err: readonly string[];
  readonly probe: string;
}

/** Runs a command as its task does, in a shell, but without one of its flags. */
async function run(name: Name, words: readonly string[], options: {
  readonly from: string;
  readonly without?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}): Promise<Outcome> {
  const { from, without = [], env = {} } = options;
  let command = without.reduce((text, flag) => text.replace(` ${flag}`, ""), config.tasks[name].command);
  command = command.replace("deno run", `deno run --no-check --preload=${PROBE}`);
  const { code, stdout, stderr } = await new Deno.Command("sh", {
    args: ["-c", `${command} "$@"`, "sh", ...words],
    cwd: ROOT,
    env: { NO_COLOR: "1", INIT_CWD: from, ...env },
  }).output();
  const lines = new TextDecoder().decode(stderr).split("\n")
    .filter((line) => line !== "" && !line.startsWith("error: XDG_RUNTIME_DIR"));
  return {
    code,
    out: new TextDecoder().decode(stdout),
    err: lines.filter((line) => !line.startsWith("PROBE")),
    probe: lines.find((line) => line.startsWith("PROBE")) ?? "",
  };
}

/** Runs all, as many at a time as there are processors, at most four. */
async function all(jobs: readonly (() => Promise<void>)[]): Promise<void> {
  const left = [...jobs];
  const worker = async () => {
    for (let job = left.shift(); job; job = left.shift()) await job();
  };
  await Promise.all(Array.from({ length: Math.min(4, navigator.hardwareConcurrency) }, worker));
}

function flag(name: Name, kind: string): string {
  return grantsOf(name).find((each) => new RegExp(`^"?--allow-${kind}`).test(each))!;
}

Deno.test("tasks have the grants of the table, and nothing has all of them", async () => {
  const io = new MemoryIo();
  await runCli([], io);
  const commands = [...io.stdout.matchAll(/^ {2}(\w+) /gm)].map((match) => match[1]!);
  assertEquals(commands.sort(), [...NAMES].sort(), "commands in the table");
  for (const name of NAMES) {
    const task = `deno run --no-prompt ${grantsOf(name).join(" ")} cli/main.ts ${name}`;
    assertEquals(config.tasks[name].command, task, name);
  }
  assertIncludes(config.tasks.dawn.command, ` ${dawnGrants().join(" ")} cli/main.ts`);
  const documents = await Array.fromAsync(Deno.readDir(`${ROOT}docs`));
  const files = ["deno.json", "README.md", "longreach", ...documents.map(({ name }) => `docs/${name}`)];
  for (const file of files.filter((each) => /\.md$|\.json$|longreach$/.test(each))) {
    const text = await Deno.readTextFile(ROOT + file);
    assert(
      !/deno (run|test|eval|task|serve)[^\n]*\s(-A|--allow-all)\b/.test(text),
      `${file} grants everything`,
    );
  }
});

Deno.test("the benches may read what every command may, and the two variables that they set", () => {
  const variables = (command: string) => /--allow-env=(\S+)/.exec(command)![1]!.split(",").sort();
  const own = variables(config.tasks.demo.command);
  for (const name of ["bench", "bench:dawn"] as const) {
    const wanted = [...own, "LP_NUM_THREADS", "TMPDIR"].sort();
    assertEquals(variables(config.tasks[name].command), wanted, name);
  }
});

Deno.test("nothing that runs before the grants are given back imports a library", async () => {
  const seen = new Set<string>();
  const walk = async (file: string): Promise<void> => {
    if (seen.has(file) || !file.endsWith(".ts")) return;
    seen.add(file);
    // Types are gone when it runs.
    const source = (await Deno.readTextFile(file))
      .replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$|^(import|export) type [^;]*;/gm, "");
    for (
      const [, specifier] of source.matchAll(
        /^(?:(?:import|export)\b[^;"'=]*\bfrom|import)\s*["']([^"']+)["']/gm,
      )
    ) {
      assert(/^(\.|node:)/.test(specifier!), `${file} imports ${specifier}`);
      if (specifier!.startsWith(".")) await walk(new URL(specifier!, `file://${file}`).pathname);
    }
  };
  await walk(`${ROOT}cli/main.ts`);
  assert(seen.size > 5 && seen.has(`${ROOT}cli/permissions.ts`), `${seen.size} files`);
});

Deno.test("the network is kept only where a name is not here, and in doubt", async () => {
  await withFolder(async (folder) => {
    const here = Deno.cwd();
    Deno.chdir(folder);
    try {
      await Deno.mkdir("models/here", { recursive: true });
      await Deno.writeTextFile(
        "local.yaml",
        "# see org/name\nmodel_name_or_path: models/here # org/name\noutput_dir: out/run\n",
      );
      await Deno.writeTextFile("hub.yaml", 'train_data:\n  - a.jsonl\n  - "hf://datasets/org/books[50]"\n');
      await Deno.writeTextFile("other.cfg", "'model_name_or_path' : org/name@v1\n");
      await Deno.writeTextFile("folded.yaml", "model_name_or_path: >-\n  org/name\n");
      await Deno.writeTextFile("flow.yaml", "{model_name_or_path: models/here}");
      const cases: [boolean, string][] = [
        [false, "evaluate --base_model models/here --data_path /a/b.bin --json"],
        [false, "evaluate --base_model ./none/x --data_path b.bin"],
        [true, "evaluate --base_model org/name --data_path b.bin"],
        [true, "evaluate --base-model=org/name@main"],
        [true, "evaluate --peft-model org/name"],
        [true, "evaluate --data_path hf://datasets/org/name/a.bin"],
        [false, "merge --base_model models/here --peft_model models/here --save_path out/merged"],
        [true, "merge --base_model models/here --peft_model models/none"],
        [false, "convert --model models/here --to gguf --save_path out/x"],
        [true, "convert --model=org/name"],
        [true, "tokenize --data_path a.txt,hf://datasets/a/b"],
        [false, "tokenize --data_path a.txt,b.txt --save_path out/b.bin"],
        [false, "train local.yaml"],
        [false, "train --train_args_file local.yaml --output_dir out/x"],
        [true, "train local.yaml --model_name_or_path org/name"],
        [true, "train local.yaml --lora=org/name"],
        [true, "train hub.yaml"],
        [false, "plan hub.yaml"],
        [true, "plan other.cfg"],
        [true, "plan --bf16=true other.cfg"],
        [true, "train -c other.cfg"],
        [true, "train --config=other.cfg"],
        [true, "train folded.yaml"],
        [true, "train flow.yaml"],
        [true, "train /dev/null"],
        [false, "train none.yaml"],
        [false, "plan --shape llama2-7b"],
        [true, "download --help"],
        [true, "upload"],
        [false, "demo --output_dir org/name"],
        [false, "none --model org/name"],
      ];
      for (const [wanted, line] of cases) {
        const [command, ...words] = line.split(" ");
        assertEquals(needsHub(command!, words), wanted, line);
      }
    } finally {
      Deno.chdir(here);
    }
  });
});

Deno.test("mirrors that the environment names are granted, and what is none is not", () => {
  const loopback = ["127.0.0.1", "localhost", "[::1]"];
  const hosts: [string, string, string[]][] = [
    ["", "", []],
    ["https://hf-mirror.com/", "", ["hf-mirror.com", "*.hf-mirror.com"]],
    ["http://10.0.0.7:8080/hub", "", ["10.0.0.7"]],
    ["http://127.0.0.1:8080", "", loopback],
    ["http://[::1]:8080", "", loopback],
    ["not an address", "a.b:9000, *.c.d ,,[fe80::1],x y,http://z,-e,*", ["a.b:9000", "*.c.d", "[fe80::1]"]],
  ];
  for (const [endpoint, more, wanted] of hosts) assertEquals(hostsOf(endpoint, more), wanted, endpoint);
});

/** A quick call of each command on this machine's files, in a folder to write to. */
function localCalls(folder: string): Readonly<Partial<Record<Name, string[]>>> {
  const model = `${GOLDEN}/mha`;
  const call = (text: string) => text.split(" ");
  return {
    train: call(
      `--model_name_or_path ${model} --train_file ${folder}/text.txt --output_dir ${folder}/run --max_steps 1 ` +
        `--max_seq_length 64 --model_max_length 64 --lora_rank 4 --json`,
    ),
    plan: call(
      "--shape llama2-7b --model_max_length 8192 --bf16 true --max_binding 1GiB",
    ),
    evaluate: call(
      `--base_model ${model} --data_path ${GOLDEN}/data.bin --seq_len 64 --sliding_window 256 --json`,
    ),
    merge: call(`--base_model ${model} --peft_model ${GOLDEN}/adapter --save_path ${folder}/merged`),
    tokenize: call(
      `--model_name_or_path ${model} --data_path ${folder}/text.txt --save_path ${folder}/ids.bin`,
    ),
    convert: call(`--model ${GOLDEN}/mha-bin --to safetensors --save_path ${folder}/converted`),
    pdf2txt: call(`--pdf_path ${folder}/a.pdf --outputs_dir ${folder}/pdf`),
    doctor: [],
  };
}

/** Calls that cannot write where they are told to, for commands that would take long. */
function blockedCalls(folder: string): Readonly<Partial<Record<Name, string[]>>> {
  return {
    demo: ["--output_dir", `${folder}/text.txt/out`],
    study: ["--output_dir", `${folder}/text.txt/out`, "--steps", "4"],
    get_trainable_weights: ["--checkpoint_path", `${folder}/none`, "--save_path", `${folder}/out`],
  };
}

async function withInputs(use: (folder: string) => Promise<void>): Promise<void> {
  await withFolder(async (folder) => {
    await Deno.writeTextFile(
      `${folder}/text.txt`,
      "The quick brown fox jumps over the lazy dog. ".repeat(40),
    );
    await Deno.writeFile(`${folder}/a.pdf`, makePdf([[{ x: 50, y: 700, text: "Some words." }]]));
    await use(folder);
  });
}

/** What a command prints, without what differs from run to run. */
const stable = (text: string) =>
  text.replaceAll(
    /[\d.]+ ?m?s\b|seconds +[\d.]+|"\w*(?:seconds|_ms|_per_second|perSecond|Ms)":[\d.e-]+|\/tmp\/longreach-test-\w+/g,
    "",
  );

posixTest(
  "commands on local files run with exactly their tasks' grants, and have given the network back",
  async () => {
    await withInputs((folder) =>
      all(
        Object.entries(localCalls(folder)).map(([key, words]) => async () => {
          const name = key as Name;
          const { code, err, probe, out } = await run(name, words, { from: folder });
          assertEquals(code, 0, `${name}: ${err.join("\n")}`);
          const { write } = NEEDS[name];
          assertEquals(
            probe,
            `PROBE net prompt hub prompt write ${write === "anywhere" ? "granted" : "prompt"}`,
            name,
          );
          const optional = grantsOf(name).filter((each) =>
            /^"?--allow-net/.test(each) || (write === "until fetched" && /--allow-write/.test(each))
          );
          if (!["evaluate", "tokenize", "convert"].includes(name)) return;
          const other = `${folder}/${name}`;
          await Deno.mkdir(other);
          const again = await run(
            name,
            words.map((word) => word.replace(/^(.*)\/(run|merged|ids.bin|converted)$/, `${other}/$2`)),
            {
              from: folder,
              without: optional,
            },
          );
          assertEquals([again.code, stable(again.out).replaceAll(`/${name}/`, "/")], [0, stable(out)], name);
        }),
      )
    );
  },
);

posixTest("evaluate keeps the right to write for the picture that it is asked for", async () => {
  await withInputs(async (folder) => {
    const words = [...localCalls(folder).evaluate!, "--plot_path", `${folder}/a.svg`];
    const { code, err, probe } = await run("evaluate", words, { from: folder });
    assertEquals([code, probe], [0, "PROBE net prompt hub prompt write granted"], err.join("\n"));
    assertIncludes(await Deno.readTextFile(`${folder}/a.svg`), "<svg");
  });
});

posixTest("without a grant that it needs, a command ends in one line that names the flag", async () => {
  await withInputs((folder) => {
    const calls = {
      ...localCalls(folder),
      ...blockedCalls(folder),
      make_demo: [],
      download: ["--name", "org/x"],
      upload: ["--path", folder, "--name", "me/x"],
    };
    const jobs = Object.entries(calls).flatMap(([key, words]) => {
      const name = key as Name;
      const kinds = [
        "read",
        "env",
        ...(NEEDS[name].write === "anywhere" && name !== "get_trainable_weights" ? ["write"] : []),
      ];
      return kinds.filter((kind) => !(name === "doctor" && kind === "read")).map((kind) => async () => {
        const { code, err } = await run(name, words, { from: folder, without: [flag(name, kind)] });
        const what = `${name} without --allow-${kind}: ${err.join("\n")}`;
        // Progress has its time in front; make_demo says what it begins with.
        const said = err.filter((line) => !/^(\d{4}-\d\d-\d\dT|Writing )/.test(line));
        assert(code !== 0 && said.length === 1, what);
        assert(said[0]!.includes(`--allow-${kind}`) && !said[0]!.includes("bug"), what);
      });
    });
    return all(jobs);
  });
});

posixTest("demo and study have what they need up to the first file", async () => {
  await withInputs((folder) =>
    all(
      Object.entries(blockedCalls(folder)).map(([name, words]) => async () => {
        const { code, err } = await run(name as Name, words, { from: folder });
        assert(
          code === 1 && /^Cannot .*(part of the path is a file|no such file)/.test(err.at(-1)!),
          `${name}: ${err.join("\n")}`,
        );
        assert(!err.join().includes("--allow"), `${name}: ${err.join("\n")}`);
      }),
    )
  );
});

posixTest(
  "download and upload reach the mirror and the cache that the environment names, and nothing else",
  async () => {
    const model = {
      kind: "model",
      name: "org/tiny",
      commit: "0123456789abcdef0123456789abcdef01234567",
    } as const;
    const uploads = new HubUploads();
    const files = {
      "config.json": await Deno.readFile(`${GOLDEN}/mha/config.json`),
      "model.safetensors": await Deno.readFile(`${GOLDEN}/mha/model.safetensors`),
    };
    await using server = new HubServer([{ ...model, files }]);
    await using _storage = serveUploads(uploads, server);
    await withFolder(async (folder) => {
      const env = { HF_ENDPOINT: server.url, HF_HUB_CACHE: "my cache", HF_TOKEN: "secret" };
      const words = ["--name", "org/tiny", "--json"];
      const fetched = await run("download", words, { from: folder, env });
      assertEquals(fetched.code, 0, fetched.err.join("\n"));
      const { path } = JSON.parse(fetched.out);
      assertEquals(path, `my cache/models--org--tiny/snapshots/${model.commit}`);
      assertEquals(
        (await Deno.readFile(`${folder}/${path}/config.json`)).length,
        files["config.json"].length,
      );
      assertEquals(fetched.probe, "PROBE net prompt hub granted write granted");

      // A name of the hub keeps the network until it is fetched.
      const planned = await run("plan", [
        "--model_name_or_path",
        "org/tiny",
        "--max_seq_length",
        "64",
        "--max_binding",
        "1GiB",
      ], {
        from: folder,
        env,
      });
      assertEquals(planned.code, 0, planned.err.join("\n"));
      assertEquals(planned.probe, "PROBE net prompt hub prompt write prompt");

      for (const name of ["adapter_config.json", "adapter_model.safetensors"]) {
        await Deno.copyFile(`${GOLDEN}/adapter/${name}`, `${folder}/${name}`);
      }
      const upload = ["--path", folder, "--name", "me/mine", "--base_model", "org/tiny"];
      const sent = await run("upload", upload, { from: folder, env });
      assertEquals(
        [sent.code, uploads.commits.length, uploads.leakedTokens],
        [0, 1, []],
        sent.err.join("\n"),
      );

      for (
        const [name, kind, call] of [["download", "net", words], ["upload", "net", upload], [
          "download",
          "write",
          words,
        ]] as const
      ) {
        const cacheless = { ...env, HF_HUB_CACHE: "other" };
        const { code, err } = await run(name, call, {
          from: folder,
          env: cacheless,
          without: [flag(name, kind)],
        });
        assert(
          code === 1 && err.length === 1 && err[0]!.includes(`--allow-${kind}`),
          `${name}: ${code} ${err.join("\n")}`,
        );
      }
      const strange = { ...env, HF_HUB_CACHE: "third" };
      server.fault = (request) => Response.redirect(request.url.replace("127.0.0.1", "127.0.0.2"));
      const { code, err } = await run("download", words, { from: folder, env: strange });
      assert(
        code === 1 && err.length === 1 && err[0]!.includes("LONGREACH_HUB_HOSTS=127.0.0.2"),
        err.join("\n"),
      );
    });
  },
);
