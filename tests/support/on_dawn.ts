/** Loaded ahead of a test file (`deno test --preload`), it makes every device of the file one of Dawn's. */
import { useWebGpu } from "../../kernels/adapter.ts";

useWebGpu("dawn");
