import { Trace } from "../../cli/trace.ts";
import { assertEquals } from "../support/assert_close.ts";
import { MemoryIo } from "./memory_io.ts";

Deno.test("a trace is a table by kernel, the longest first, and starts over once shown", () => {
  const io = new MemoryIo();
  const trace = new Trace();
  const grid = [1, 1, 1] as const;
  trace.add({ kernel: "add", grid, bytes: 4e6, microseconds: 1000 });
  trace.add({ kernel: "matmul", grid, bytes: 1e6, microseconds: 2500 });
  trace.add({ kernel: "add", grid, bytes: 4e6, microseconds: 1000 });
  trace.add({ kernel: "norm", grid, bytes: 5e5, microseconds: 500 });
  trace.add({ kernel: "sum", grid, bytes: 1234, microseconds: 250 });
  trace.add({ kernel: "scale", grid, bytes: 1000, microseconds: 125 });
  trace.add({ kernel: "none", grid, bytes: 0, microseconds: 125 });
  trace.show(io, "Kernels of step 1");
  assertEquals(io.stderr.split("\n"), [
    "Kernels of step 1",
    "  kernel  calls    ms    share  GB/s bound",
    "  matmul      1  2.50   45.5 %         0.4",
    "  add         2  2.00   36.4 %         4.0",
    "  norm        1  0.50    9.1 %         1.0",
    "  sum         1  0.25    4.5 %      0.0049",
    "  scale       1  0.13    2.3 %      0.0080",
    "  none        1  0.13    2.3 %         0.0",
    "  all         7  5.50  100.0 %",
    "",
  ]);
  trace.show(io, "nothing more");
  assertEquals(io.stderr.includes("nothing more"), false);
});
