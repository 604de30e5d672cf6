import { addTiming, showTrace } from "../../cli/trace.ts";
import { assertEquals } from "../support/assert_close.ts";
import { MemoryIo } from "./memory_io.ts";

Deno.test("a trace is a table by kernel, the longest first, and starts over once shown", () => {
  const io = new MemoryIo();
  const grid = [1, 1, 1] as const;
  addTiming({ kernel: "add", grid, bytes: 4e6, microseconds: 1000 });
  addTiming({ kernel: "matmul", grid, bytes: 1e6, microseconds: 2500 });
  addTiming({ kernel: "add", grid, bytes: 4e6, microseconds: 1000 });
  addTiming({ kernel: "norm", grid, bytes: 5e5, microseconds: 500 });
  showTrace(io, "Kernels of step 1");
  assertEquals(io.stderr.split("\n"), [
    "Kernels of step 1",
    "  kernel  calls    ms    share  GB/s bound",
    "  matmul      1  2.50   50.0 %         0.4",
    "  add         2  2.00   40.0 %         4.0",
    "  norm        1  0.50   10.0 %         1.0",
    "  all         4  5.00  100.0 %",
    "",
  ]);
  showTrace(io, "nothing more");
  assertEquals(io.stderr.includes("nothing more"), false);
});
