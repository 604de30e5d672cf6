/**
 * Everything that must hold before a commit: format, lint, types with the frozen lock file, tests. `deno task test`
 * runs it; with paths behind it, only the tests in those. The last line of its output says how many checks and tests
 * passed and failed.
 */

/** What tests may do: the same for everybody, so that none needs more by accident. */
const PERMISSIONS = [
  "--allow-read",
  "--allow-write",
  "--allow-env",
  "--allow-run=deno,sh",
  "--allow-net=127.0.0.1",
];

interface Count {
  passed: number;
  failed: number;
}

const encoder = new TextEncoder();

function print(text: string): void {
  const bytes = encoder.encode(text);
  for (let written = 0; written < bytes.length;) written += Deno.stdout.writeSync(bytes.subarray(written));
}

function deno(words: readonly string[]): Deno.Command {
  return new Deno.Command("deno", {
    args: [...words],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    env: { NO_COLOR: "1" },
  });
}

/** One check that passes or fails as a whole; its output is shown only when it fails. */
async function check(label: string, words: readonly string[]): Promise<Count> {
  const { success, stdout, stderr } = await deno(words).output();
  print(`${label} ... ${success ? "ok" : "FAILED"}\n`);
  if (success) return { passed: 1, failed: 0 };
  print(new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr));
  return { passed: 0, failed: 1 };
}

/** The tests, shown as they run. A run that breaks off before its summary counts as one failure. */
async function tests(paths: readonly string[]): Promise<Count> {
  const child = deno(["test", "--no-prompt", "--frozen", "--no-check", ...PERMISSIONS, ...paths]).spawn();
  let output = "";
  const show = async (stream: ReadableStream<Uint8Array<ArrayBuffer>>) => {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      output += text;
      print(text);
    }
  };
  const [{ success }] = await Promise.all([child.status, show(child.stdout), show(child.stderr)]);
  const summary = /^(?:ok|FAILED) \| (\d+) passed.*? \| (\d+) failed/m.exec(output);
  const count = { passed: Number(summary?.[1] ?? 0), failed: Number(summary?.[2] ?? 0) };
  if (!success && count.failed === 0) count.failed = 1;
  return count;
}

const checks: readonly (readonly [label: string, words: readonly string[]])[] = [
  ["format", ["fmt", "--check"]],
  ["lint", ["lint"]],
  ["types, with the frozen lock file", ["check", "--frozen"]],
];

const counts: Count[] = [];
if (Deno.args.length === 0) {
  for (const [label, words] of checks) counts.push(await check(label, words));
}
const from = Deno.env.get("INIT_CWD") ?? Deno.cwd();
counts.push(await tests(Deno.args.map((path) => path.startsWith("/") ? path : `${from}/${path}`)));

const passed = counts.reduce((sum, count) => sum + count.passed, 0);
const failed = counts.reduce((sum, count) => sum + count.failed, 0);
print(`\n${passed} passed, ${failed} failed\n`);
Deno.exit(failed === 0 ? 0 : 1);
