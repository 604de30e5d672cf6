/**
 * Tests on one WebGPU: `test_device.ts [--webgpu deno|dawn] [--without FEATURES] [--toggles NAMES] [--jobs N] [--seconds N] PATHS`. Each
 * file runs in a process of its own, several side by side: where threads of one process open devices at the same time,
 * Vulkan's loader reads its list of them while another thread changes it, and the process ends in a segmentation fault
 * (seen on Dawn, in vkGetDeviceProcAddr). So `deno test --parallel` is not for Dawn.
 */
import { parseArgs } from "./deps.ts";
import { conclude, type Count, print, summaryOf, TEST_PERMISSIONS, testFiles } from "./checks.ts";

const ROOT = decodeURI(new URL("..", import.meta.url).pathname);
/** Processes side by side at most: each holds memory of the device. */
const MOST_JOBS = 6;
/** Tests of Deno's own compiler. */
const NOT_ON_DAWN = "tests/kernels/wgsl_test.ts";

/** What tests/support/on_device.ts opens devices with. */
export interface TestDevice {
  readonly webgpu: string;
  readonly without: readonly string[];
  readonly toggles: readonly string[];
}

/** Runs one file and prints what it says in one piece, tests that passed left out. */
async function runFile(file: string, device: TestDevice, signal: AbortSignal): Promise<Count> {
  const { success, stdout, stderr } = await new Deno.Command("deno", {
    args: [
      "test",
      "--quiet",
      "--no-prompt",
      "--no-check",
      "--frozen",
      ...(device.webgpu === "dawn" ? ["--lock=dawn.lock", "--allow-ffi"] : []),
      "--preload=tests/support/on_device.ts",
      ...TEST_PERMISSIONS,
      file,
    ],
    signal,
    env: { NO_COLOR: "1", LONGREACH_TEST_DEVICE: JSON.stringify(device) },
  }).output();
  const text = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes)).join("");
  const { passed, failed, ignored } = summaryOf(text) ?? { passed: 0, failed: 0, ignored: 0 };
  const skipped = ignored === 0 ? "" : `, ${ignored} skipped`;
  print(`${file}: ${passed} passed, ${failed} failed${skipped}${success ? "" : " (FAILED)"}\n`);
  if (!success) print(text.split("\n").filter((line) => !/ ok \(/.test(line)).join("\n"));
  return { passed, failed: success ? failed : Math.max(1, failed) };
}

if (import.meta.main) {
  const { values, positionals } = parseArgs({
    args: Deno.args,
    allowPositionals: true,
    options: {
      webgpu: { type: "string", default: "deno" },
      without: { type: "string", default: "" },
      toggles: { type: "string", default: "" },
      jobs: { type: "string" },
      seconds: { type: "string" },
    },
  });
  const list = (text: string) => text.split(",").filter(Boolean);
  const device = { webgpu: values.webgpu, without: list(values.without), toggles: list(values.toggles) };
  Deno.chdir(ROOT);
  const files = (await testFiles(positionals))
    .filter((file) => device.webgpu !== "dawn" || file !== NOT_ON_DAWN);
  const jobs = Number(values.jobs ?? Math.max(1, Math.min(MOST_JOBS, navigator.hardwareConcurrency / 2 | 0)));
  const counts: Count[] = [];
  const waiting = files.values();
  const signal = AbortSignal.timeout(1000 * Number(values.seconds ?? 3600));
  await Promise.all(
    Array.from({ length: jobs }, async () => {
      for (const file of waiting) counts.push(await runFile(file, device, signal));
    }),
  );
  conclude(counts);
}
