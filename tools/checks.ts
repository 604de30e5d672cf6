/** Running the checks and tests of the project as processes of their own, and adding up what they say. */

/** Permissions of all tests: the same for each, so that none needs more by accident. */
export const TEST_PERMISSIONS = [
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

/** Folders of tests that take longest: they begin first, so that none of them is left running alone at the end. */
const LONGEST = ["tests/parity", "tests/train", "tests/model", "tests/cli", "tests/kernels"];

/**
 * Runs the tests of files and folders, and shows each file's when it is through. Each folder of tests is a process, as
 * many of them at once as there are cores, up to four: environment, working folder and device are no two tests' own. A
 * process that breaks off before its summary counts as one failure; one that a signal ends after it is told.
 */
export async function tests(paths: readonly string[]): Promise<TestRun> {
  const folders = Map.groupBy(await testFiles(paths), (path) => path.split("/").slice(0, -1).join("/"));
  const rank = (folder: string) => (LONGEST.indexOf(folder) + LONGEST.length + 1) % (LONGEST.length + 1);
  const queue = [...folders].sort(([a], [b]) => rank(a) - rank(b)).map(([, files]) => files);
  const total = { passed: 0, failed: 0, output: "" };
  const worker = async () => {
    for (let files = queue.shift(); files; files = queue.shift()) {
      const run = await testProcess(files);
      total.passed += run.passed;
      total.failed += run.failed;
      total.output += run.output;
    }
  };
  await Promise.all(Array.from({ length: Math.min(4, navigator.hardwareConcurrency) }, worker));
  return total;
}

/** Files of tests among `paths` and below them, relative to the project; all of them unless given. Of a path that is not there it says so, and ends. */
export async function testFiles(paths: readonly string[]): Promise<string[]> {
  const files: string[] = [];
  const visit = async (path: string): Promise<void> => {
    const found = await Deno.stat(path).catch(() => undefined);
    if (!found) {
      print(`Cannot run tests: there is no file or folder "${path}"\n`);
      Deno.exit(2);
    }
    if (found.isFile) return void files.push(path);
    for await (const { name, isDirectory } of Deno.readDir(path)) {
      if (isDirectory || name.endsWith("_test.ts")) await visit(`${path}/${name}`);
    }
  };
  for (const path of paths.length > 0 ? paths : ["tests"]) await visit(path.replace(/\/$/, ""));
  return files.sort();
}

/** Runs files of tests in a process of their own. What it prints comes file by file, so that those of several do not mix. */
async function testProcess(files: readonly string[]): Promise<TestRun> {
  const child = deno(["test", "--no-prompt", "--frozen", "--no-check", ...TEST_PERMISSIONS, ...files])
    .spawn();
  let output = "";
  let shown = 0;
  const show = async (stream: ReadableStream<Uint8Array<ArrayBuffer>>) => {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      output += text;
      const next = output.lastIndexOf("\nrunning ");
      if (next <= shown) continue;
      print(output.slice(shown, next + 1));
      shown = next + 1;
    }
  };
  const [{ success, signal }] = await Promise.all([child.status, show(child.stdout), show(child.stderr)]);
  print(output.slice(shown));
  const summary = summaryOf(output);
  const { passed, failed } = summary ?? { passed: 0, failed: 0 };
  if (success || failed > 0) return { passed, failed, output };
  // Drivers are taken down when all is done.
  if (summary && signal) {
    print(`(ended by ${signal} after its last test, in the taking down of the driver)\n`);
  }
  return { passed, failed: summary && signal ? 0 : 1, output };
}

/** Reads what a process of tests says of itself at its end; undefined where it did not get so far. */
export function summaryOf(output: string): Count & { readonly ignored: number } | undefined {
  const summary = /^(?:ok|FAILED) \| (\d+) passed.*? \| (\d+) failed(?: \| (\d+) ignored)?/m.exec(output);
  if (!summary) return undefined;
  const [, passed, failed, ignored = "0"] = summary;
  return { passed: Number(passed), failed: Number(failed), ignored: Number(ignored) };
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
