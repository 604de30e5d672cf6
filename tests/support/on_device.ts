/**
 * Loaded ahead of a test file (`deno test --preload`), it makes every device of the file the one that
 * LONGREACH_TEST_DEVICE names, as tools/test_device.ts does.
 */
import { Gpu, type GpuOptions } from "../../kernels/gpu.ts";

const device: GpuOptions = JSON.parse(Deno.env.get("LONGREACH_TEST_DEVICE") ?? "{}");
const open = Gpu.open.bind(Gpu);
Gpu.open = (options) => open({ ...device, ...options });
