/** Loaded ahead of a test file (`deno test --preload`), it makes every device of the file one of Dawn's. */
import { Gpu } from "../../kernels/gpu.ts";

const open = Gpu.open.bind(Gpu);
Gpu.open = (options) => open({ webgpu: "dawn", ...options });
