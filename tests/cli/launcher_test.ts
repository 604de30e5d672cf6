import { assert, assertEquals } from "../support/assert_close.ts";
import { assertIncludes } from "../support/text.ts";

const LAUNCHER = new URL("../../longreach", import.meta.url).pathname;
const CONFIG = new URL("../../deno.json", import.meta.url).pathname;

/** Programs the launcher may count on; everything else a test puts on PATH itself. */
const TOOLS = "sh awk grep cut tr cat dirname readlink uname mkdir chmod ln env mktemp".split(" ");

/** A Deno that notes what it is asked; the adapter answers once the file `adapter` exists. */
const fakeDeno = (version: string) =>
  `#!/bin/sh
case $1 in
  --version) echo "deno ${version} (stable)" ;;
  run) [ -e "$HERE/adapter" ] ;;
  task)
    shift
    printf 'task'
    printf ' <%s>' "$@"
    printf '\\ninit=%s xdg=%s\\n' "$INIT_CWD" "$XDG_RUNTIME_DIR"
    ;;
esac
`;
const FAKE_NPM = `#!/bin/sh
echo "npm $*" >> "$HERE/log"
mkdir -p "$HERE/checkout/.deno/npm/node_modules/@deno/any"
cat > "$HERE/checkout/.deno/npm/node_modules/@deno/any/deno" <<'END'
${fakeDeno("2.9.6")}
END
`;
const FAKE_CURL = `#!/bin/sh
echo "curl $*" >> "$HERE/log"
while [ "$1" != -o ]; do shift; done
cat > "$2" <<'OUTER'
echo "installer $* into $DENO_INSTALL" >> "$HERE/log"
cat > "$DENO_INSTALL/bin/deno" <<'END'
${fakeDeno("2.9.6")}
END
chmod +x "$DENO_INSTALL/bin/deno"
OUTER
`;
const FAKE_APT = `#!/bin/sh
echo "apt-get $*" >> "$HERE/log"
case "$*" in *mesa-vulkan-drivers*) : > "$HERE/adapter" ;; esac
`;
const fakeId = (user: number) => `#!/bin/sh\necho ${user}\n`;

/** A checkout with the launcher, and a PATH of only {@linkcode TOOLS} and the given fakes. */
class Machine implements AsyncDisposable {
  private constructor(readonly here: string) {}

  static async create(fakes: Record<string, string>, { adapter = true } = {}): Promise<Machine> {
    const machine = new Machine(await Deno.realPath(await Deno.makeTempDir()));
    const { here } = machine;
    for (const folder of ["bin", "checkout", "elsewhere"]) await Deno.mkdir(`${here}/${folder}`);
    await Deno.copyFile(LAUNCHER, `${here}/checkout/longreach`);
    await Deno.copyFile(CONFIG, `${here}/checkout/deno.json`);
    for (const tool of TOOLS) await Deno.symlink(await findTool(tool), `${here}/bin/${tool}`);
    for (const [name, script] of Object.entries({ id: fakeId(0), ...fakes })) {
      await Deno.writeTextFile(`${here}/bin/${name}`, script, { mode: 0o755 });
    }
    if (adapter) await Deno.writeTextFile(`${here}/adapter`, "");
    return machine;
  }

  async run(
    words: readonly string[],
    setup = "",
  ): Promise<{ code: number; out: string; err: string; log: string }> {
    const script = `unset INIT_CWD XDG_RUNTIME_DIR; HERE=$1; PATH=$1/bin; export HERE PATH; ${setup}
      shift; exec sh ../checkout/longreach "$@"`;
    const { code, stdout, stderr } = await new Deno.Command("sh", {
      args: ["-c", script, "sh", this.here, ...words],
      cwd: `${this.here}/elsewhere`,
      stdin: "null",
    }).output();
    const log = await Deno.readTextFile(`${this.here}/log`).catch(() => "");
    const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes)) as [string, string];
    return { code, out, err, log };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.here, { recursive: true });
  }
}

async function findTool(name: string): Promise<string> {
  for (const folder of ["/usr/bin", "/bin"]) {
    const path = `${folder}/${name}`;
    if (await Deno.stat(path).then(() => true, () => false)) return path;
  }
  throw new Error(`This test needs ${name} in /usr/bin or /bin`);
}

function posixTest(name: string, fn: () => Promise<void>): void {
  Deno.test({ name: `launcher: ${name}`, ignore: Deno.build.os === "windows", fn });
}

posixTest("is a script that sh can parse", async () => {
  const { success } = await new Deno.Command("sh", { args: ["-n", LAUNCHER] }).output();
  assert(success, "sh -n");
});

posixTest("alone, it lists users' commands, and developers' by name, without needing Deno", async () => {
  await using machine = await Machine.create({});
  const { code, out, err } = await machine.run([]);
  assertEquals([code, err], [0, ""]);
  const tasks: Record<string, { description: string; command: string }> = JSON.parse(
    await Deno.readTextFile(CONFIG),
  ).tasks;
  const [users, developers] = out.split("For developers:") as [string, string];
  for (const [name, { description, command }] of Object.entries(tasks)) {
    const isCommand = command.endsWith(`cli/main.ts ${name}`);
    if (isCommand) assert(new RegExp(`^  ${name} +${description}$`, "m").test(users), `${name} in:\n${out}`);
    else assert(new RegExp(`  ${name}( |$)`, "m").test(developers), `${name} in:\n${out}`);
  }
  for (const line of out.split("\n")) assert(line.length <= 100, `broken at 100 columns: ${line}`);
  const columns = new Set(users.trim().split("\n").slice(2).map((line) => /^ *\S+ +/.exec(line)![0].length));
  assertEquals(columns.size, 1, "descriptions stand in one column");
});

posixTest("--version names the version, without needing Deno", async () => {
  await using machine = await Machine.create({});
  const { version } = JSON.parse(await Deno.readTextFile(CONFIG));
  for (const word of ["--version", "version", "-V"]) {
    const { code, out, err } = await machine.run([word]);
    assertEquals([code, err], [0, ""]);
    assertIncludes(out, `longreach ${version}`);
  }
});

posixTest("an unknown command is refused with the list and exit code 2", async () => {
  await using machine = await Machine.create({ deno: fakeDeno("2.9.6") });
  const { code, err } = await machine.run(["trian"]);
  assertEquals(code, 2);
  assertIncludes(err, 'no command "trian"; did you mean train?');
  assertIncludes(err, "  train ");
});

for (
  const [wrong, meant] of [
    ["eval", "evaluate"],
    ["mergee", "merge"],
    ["get-trainable-weight", "get_trainable_weights"],
    ["xyz", null],
    ["-", null],
  ] as const
) {
  posixTest(`"${wrong}" is answered with ${meant ?? "no guess"}`, async () => {
    await using machine = await Machine.create({ deno: fakeDeno("2.9.6") });
    const { err } = await machine.run([wrong]);
    assertEquals(/did you mean (\w+)/.exec(err)?.[1] ?? null, meant);
  });
}

posixTest("hands words over unchanged and says where the user stands", async () => {
  await using machine = await Machine.create({ deno: fakeDeno("2.10.0") });
  const { code, out, log } = await machine.run(["make-demo", "a b", "$HOME", "", "--x=*"]);
  assertEquals([code, log], [0, ""]);
  const config = `${machine.here}/checkout/deno.json`;
  assertIncludes(out, `task <--quiet> <--config> <${config}> <make_demo> <a b> <$HOME> <> <--x=*>`);
  assertIncludes(out, `init=${machine.here}/elsewhere xdg=${machine.here}/checkout/.deno/runtime`);
  assertEquals((await Deno.stat(`${machine.here}/checkout/.deno/runtime`)).mode! & 0o777, 0o700);
});

posixTest("works through a link", async () => {
  await using machine = await Machine.create({ deno: fakeDeno("3.0.0") });
  await Deno.symlink("../checkout/longreach", `${machine.here}/bin/reach`);
  const { out } = await machine.run([], "ln -sf ../bin/reach ./reach; sh ./reach doctor; exit");
  assertIncludes(out, `<${machine.here}/checkout/deno.json> <doctor>`);
});

for (
  const old of [{}, { deno: fakeDeno("2.9.5") }, { deno: fakeDeno("1.46.3") }, {
    deno: "#!/bin/sh\nexit 1\n",
  }]
) {
  const what = "deno" in old ? /echo "deno ([\d.]+)/.exec(old.deno)?.[1] ?? "a broken Deno" : "no Deno";
  posixTest(`${what} and npm: installs the pinned one once`, async () => {
    await using machine = await Machine.create({ ...old, npm: FAKE_NPM, curl: FAKE_CURL });
    const first = await machine.run(["train"]);
    assertIncludes(first.out, "<train>");
    assert(/^npm install .*--ignore-scripts.* deno@2\.9\.6\n$/.test(first.log), first.log);
    const second = await machine.run(["train"]);
    assertEquals([second.code, second.log], [0, first.log]);
  });
}

posixTest("no npm, but curl: the official installer, with unzip where it is missing", async () => {
  await using machine = await Machine.create({ curl: FAKE_CURL, "apt-get": FAKE_APT });
  const { code, out, log } = await machine.run(["train"]);
  assertEquals(code, 0);
  assertIncludes(out, "<train>");
  assertIncludes(log, "apt-get install -y -qq --no-install-recommends unzip");
  assertIncludes(log, "https://deno.land/install.sh");
  assertIncludes(log, `installer --no-modify-path v2.9.6 into ${machine.here}/checkout/.deno`);
});

posixTest("an npm that fails gives way to curl", async () => {
  await using machine = await Machine.create({
    npm: "#!/bin/sh\nexit 1\n",
    curl: FAKE_CURL,
    unzip: "#!/bin/sh\n",
  });
  const { code, log } = await machine.run(["train"]);
  assertEquals(code, 0);
  assertIncludes(log, "installer");
});

posixTest("neither Deno nor npm nor curl: says what to install", async () => {
  await using machine = await Machine.create({});
  const { code, err } = await machine.run(["train"]);
  assertEquals(code, 1);
  assertIncludes(err, "needs Deno 2.9.6 or newer, or npm or curl to fetch it");
});

posixTest("no adapter: root installs Mesa's drivers", async () => {
  await using machine = await Machine.create({ deno: fakeDeno("2.9.6"), "apt-get": FAKE_APT }, {
    adapter: false,
  });
  const { code, out, log } = await machine.run(["demo"]);
  assertEquals(code, 0);
  assertIncludes(out, "<demo>");
  assertIncludes(log, "apt-get update");
  assertIncludes(log, "mesa-vulkan-drivers libvulkan1");
});

posixTest("no adapter: others go through sudo, and are told what to do where there is none", async () => {
  const sudo = '#!/bin/sh\necho "sudo $1" >> "$HERE/log"\nshift\nexec "$@"\n';
  const fakes = { deno: fakeDeno("2.9.6"), "apt-get": FAKE_APT, id: fakeId(1000) };
  {
    await using machine = await Machine.create({ ...fakes, sudo }, { adapter: false });
    const { code, log } = await machine.run(["demo"]);
    assertEquals(code, 0);
    assertIncludes(log, "sudo -n");
  }
  await using machine = await Machine.create({ ...fakes, uname: "#!/bin/sh\necho Linux\n" }, {
    adapter: false,
  });
  const { code, err, log } = await machine.run(["demo"]);
  assertEquals([code, log], [1, ""]);
  assertIncludes(err, "apt-get install mesa-vulkan-drivers");
});

posixTest("LONGREACH_NO_INSTALL installs nothing", async () => {
  await using machine = await Machine.create({ npm: FAKE_NPM, curl: FAKE_CURL, "apt-get": FAKE_APT });
  const { code, err, log } = await machine.run(["train"], "export LONGREACH_NO_INSTALL=1");
  assertEquals([code, log], [1, ""]);
  assertIncludes(err, "needs Deno 2.9.6 or newer on PATH");
});

posixTest("help and doctor need no adapter", async () => {
  await using machine = await Machine.create({ deno: fakeDeno("2.9.6"), "apt-get": FAKE_APT }, {
    adapter: false,
  });
  for (const words of [["train", "--help"], ["doctor"]]) {
    const { code, log } = await machine.run(words);
    assertEquals([code, log], [0, ""]);
  }
});

posixTest(
  "Dawn's task runs what asks for Dawn, with or without an adapter of Deno's; nothing else gets its rights",
  async () => {
    await using machine = await Machine.create({ deno: fakeDeno("2.9.6") }, { adapter: false });
    const cases: [setup: string, words: string[], task: string][] = [
      ["", ["train", "--webgpu", "dawn"], "<dawn> <train> <--webgpu> <dawn>"],
      ["", ["evaluate", "--webgpu=dawn", "--x"], "<dawn> <evaluate> <--webgpu=dawn> <--x>"],
      ["LONGREACH_WEBGPU=dawn; export LONGREACH_WEBGPU;", ["make-demo"], "<dawn> <make_demo>"],
      ["LONGREACH_WEBGPU=dawn; export LONGREACH_WEBGPU;", ["lint"], "<lint>"],
      [
        "LONGREACH_WEBGPU=dawn; export LONGREACH_WEBGPU;",
        ["doctor", "--webgpu", "deno"],
        "<doctor> <--webgpu> <deno>",
      ],
      ["", ["dawn", "doctor"], "<dawn> <doctor>"],
      ["", ["doctor", "--out", "dawn"], "<doctor> <--out> <dawn>"],
    ];
    for (const [setup, words, task] of cases) {
      const { code, out, err } = await machine.run(words, setup);
      assertEquals([code, err], [0, ""]);
      assertIncludes(out, `${machine.here}/checkout/deno.json> ${task}\n`);
    }
  },
);

posixTest(
  "where MPI starts it, the library is found and granted to commands of ranks; nowhere else",
  async () => {
    const deno = fakeDeno("2.9.6").replace(
      "shift\n",
      'printf "[%s][%s]" "$LONGREACH_MPI" "$LONGREACH_MPI_GRANT"\n    shift\n',
    );
    const ldconfig =
      '#!/bin/sh\n[ -z "$LISTED" ] || printf \'\\tlibmpi.so.40 (libc6,x86-64) => %s\\n\' "$LISTED"\n';
    await using machine = await Machine.create({ deno, ldconfig });
    const listed = `${machine.here}/libmpi.so.40`;
    const beside = `${machine.here}/elsewhere/libmpich.so.12`;
    for (const path of [listed, beside]) await Deno.writeTextFile(path, "");
    const granted = (path: string) => `[${path}][--allow-ffi=${path}]`;
    const cases: [setup: string, words: string[], out: string][] = [
      [`export LONGREACH_MPI=/x LONGREACH_MPI_GRANT=--allow-all LISTED=${listed};`, ["train"], "[][]"],
      [`export OMPI_COMM_WORLD_RANK=0 LISTED=${listed};`, ["train"], granted(listed)],
      [`export PMIX_RANK=3 LISTED=${listed};`, ["passkey"], granted(listed)],
      [
        `export PMI_RANK=0 LD_LIBRARY_PATH=/nowhere:${machine.here}/elsewhere;`,
        ["evaluate"],
        granted(beside),
      ],
      ["export PMI_RANK=0 LONGREACH_MPI_LIBRARY=/my/lib.so;", ["train"], granted("/my/lib.so")],
    ];
    for (const [setup, words, wanted] of cases) {
      const { code, out, err } = await machine.run(words, setup);
      assertEquals([code, err], [0, ""], setup);
      assert(out.startsWith(wanted), `${setup} gave ${out}`);
    }
    const refused: [setup: string, words: string[], message: string][] = [
      ["export OMPI_COMM_WORLD_RANK=0;", ["train"], "its library is not found: install Open MPI or MPICH"],
      [`export PMI_RANK=0 LISTED=${listed};`, ["train"], "its library is not found"],
      [`export PMIX_RANK=0 LISTED=${listed};`, ["merge"], "merge runs as one process"],
      ["export SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=0;", ["train"], "use srun --mpi=pmix"],
    ];
    for (const [setup, words, message] of refused) {
      const { code, out, err } = await machine.run(words, setup);
      assertEquals([code, out], [1, ""], setup);
      assertIncludes(err, message);
      const others = setup.replace("RANK=0", "RANK=1").replace("PROCID=0", "PROCID=1");
      const { code: second, err: said } = await machine.run(words, others);
      assertEquals([second, said], [1, ""], "what fails alike on all is said once");
    }
  },
);
