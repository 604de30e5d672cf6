/** Running the checks and tests of the project as processes of their own, and adding up what they say. */

/** Permissions of all tests: the same for each, so that none needs more by accident. */
const PERMISSIONS = [
  "--allow-read",
  "--allow-write",
  "--allow-env",
  "--allow-run=deno,sh",
  "--allow-net=127.0.0.1",
];

/** Checks or tests by their outcome. */
export interface Count {
  passed: number;
  failed: number;
}

const encoder = new TextEncoder();

/** Writes all of a text to stdout. */
export function print(text: string): void {
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
export async function check(label: string, words: readonly string[]): Promise<Count> {
  const { success, stdout, stderr } = await deno(words).output();
  print(`${label} ... ${success ? "ok" : "FAILED"}\n`);
  if (success) return { passed: 1, failed: 0 };
  print(new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr));
  return { passed: 0, failed: 1 };
}

/** The outcome of tests, and what they printed. */
export interface TestRun extends Count {
  readonly output: string;
}

/** Runs tests and shows them as they run. A run that breaks off before its summary counts as one failure. */
export async function tests(paths: readonly string[]): Promise<TestRun> {
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
  const failed = Number(summary?.[2] ?? 0);
  return { passed: Number(summary?.[1] ?? 0), failed: success ? failed : Math.max(1, failed), output };
}

/** Format, lint and types of the whole project, as {@linkcode check} takes them. */
export const CHECKS: readonly (readonly [label: string, words: readonly string[]])[] = [
  ["format", ["fmt", "--check"]],
  ["lint", ["lint"]],
  ["types, with the frozen lock file", ["check", "--frozen"]],
];

/** Writes how much passed and failed, as the last line, and ends the process accordingly. */
export function conclude(counts: readonly Count[]): never {
  const passed = counts.reduce((sum, count) => sum + count.passed, 0);
  const failed = counts.reduce((sum, count) => sum + count.failed, 0);
  print(`\n${passed} passed, ${failed} failed\n`);
  Deno.exit(failed === 0 ? 0 : 1);
}
