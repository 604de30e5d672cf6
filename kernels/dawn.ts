import { UserError } from "../errors.ts";

/**
 * Dawn, the WebGPU of Chrome, as the npm package `webgpu`. Unlike Deno's own it has matrices spread over a subgroup,
 * which drivers run on tensor cores. It is native code, so it needs `--allow-ffi`, and it is large (51 MB, 132 unpacked),
 * so nothing may name it where Deno looks ahead: in an import that is not computed, or in deno.lock. This file fetches
 * it when Dawn is asked for, and the commands that may do so use dawn.lock.
 */
const PACKAGE = "npm:webgpu@0.6.2";

/** Words for messages: starting a command on Dawn. */
const COMMAND = 'start the command as "./longreach COMMAND --webgpu dawn" or "deno task dawn COMMAND"';

/**
 * Toggles of Dawn. Subgroup matrices are behind `allow_unsafe_apis`. NVIDIA's devices have no f16, and so no matrices of
 * it, without `vulkan_enable_f16_on_nvidia`, which does nothing on others. Timestamps are rounded to 0.1 ms unless told.
 */
const TOGGLES = ["allow_unsafe_apis", "vulkan_enable_f16_on_nvidia", "-timestamp_quantization"];

interface DawnPackage {
  create(flags: string[]): GPU;
}

/** Dawn by its toggles. An instance is kept as long as the process lives: one that is collected takes it along. */
const opened = new Map<string, Promise<GPU>>();

/**
 * Loads Dawn, once for the process.
 * @param toggles besides the usual ones, with a minus before those to turn off
 * @throws {UserError} if native code is not permitted, or the package cannot be had
 */
export function openDawn(toggles: readonly string[] = []): Promise<GPU> {
  const key = toggles.join();
  if (!opened.has(key)) opened.set(key, load([...TOGGLES, ...toggles]));
  return opened.get(key)!;
}

async function load(toggles: readonly string[]): Promise<GPU> {
  const { state } = await Deno.permissions.query({ name: "ffi" });
  if (state !== "granted") {
    throw new UserError(`Cannot load Dawn without permission for native code (--allow-ffi): ${COMMAND}`);
  }
  try {
    const { create } = await import(PACKAGE) as DawnPackage;
    const backend = Deno.build.os === "linux" ? ["backend=vulkan"] : [];
    const [off, on] = [true, false].map((isOff) => toggles.filter((name) => name.startsWith("-") === isOff));
    return withDirectives(create([
      `enable-dawn-features=${on!.join()}`,
      `disable-dawn-features=${off!.map((name) => name.slice(1)).join()}`,
      ...backend,
    ]));
  } catch (error) {
    const [reason] = (error instanceof Error ? error.message : String(error)).split("\n");
    throw new UserError(
      `Cannot load Dawn (${PACKAGE}): ${reason}. The first use downloads it, 51 MB: go online once and ${COMMAND}, ` +
        `or leave out --webgpu dawn`,
      { cause: error },
    );
  }
}

/**
 * Dawn wants a directive above each use of subgroups, as the standard does; Deno refuses the same line. Kernels are
 * written without it, so their devices put it in.
 */
function withDirectives(gpu: GPU): GPU {
  const requestAdapter = gpu.requestAdapter.bind(gpu);
  gpu.requestAdapter = async (options) => {
    const adapter = await requestAdapter(options);
    if (!adapter) return null;
    const requestDevice = adapter.requestDevice.bind(adapter);
    adapter.requestDevice = async (descriptor) => {
      const device = await requestDevice(descriptor);
      const createShaderModule = device.createShaderModule.bind(device);
      device.createShaderModule = ({ code, ...rest }) =>
        createShaderModule({ ...rest, code: /\bsubgroup/.test(code) ? `enable subgroups;${code}` : code });
      return device;
    };
    return adapter;
  };
  return gpu;
}
