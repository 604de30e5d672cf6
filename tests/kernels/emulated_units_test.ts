/** What GPUs would be given to run on their matrix units, at the sizes of these, emulated. */
import { Gpu } from "../../kernels/gpu.ts";
import { describeFault } from "../../kernels/refusal.ts";
import { runTrial } from "../../kernels/trial.ts";
import { trialsOf } from "../../kernels/trials.ts";
import { assert } from "../support/assert_close.ts";
import { emulatedTest, GPUS } from "../support/emulated_units.ts";

/**
 * Trials left out: of factors that are held while their memory changes, which the emulation reads late; and those that the
 * software driver takes long to compile, of large tiles on all but one.
 */
const LEFT_OUT = /overwrite|(loads.*(f16|storage))|attention \w+ (64|128|256)/;
const LARGE = /matmul.*(64x128|128x128)/;

for (const units of GPUS) {
  emulatedTest(units, "every kernel that such a GPU would be given is right", async () => {
    using gpu = await Gpu.open({ webgpu: "deno", poison: true });
    const trials = trialsOf(gpu).filter(({ kernel }) =>
      !LEFT_OUT.test(kernel) && !(units !== GPUS[0] && LARGE.test(kernel))
    );
    for (
      const topic of ["matrix units, loads", "matmul", "attention forward", "attention dq", "attention dkv"]
    ) {
      assert(trials.some(({ kernel }) => kernel.startsWith(topic)), `a trial of ${topic}`);
    }
    for (const trial of trials) {
      const verdict = await runTrial(gpu, trial);
      assert(verdict.ok, describeFault(verdict));
    }
  });
}
