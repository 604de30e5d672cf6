/** What GPUs would be given to run on their matrix units, at the sizes of these, emulated. */
import { Gpu } from "../../kernels/gpu.ts";
import { describeFault } from "../../kernels/refusal.ts";
import { runTrial } from "../../kernels/trial.ts";
import { trialsOf } from "../../kernels/trials.ts";
import { assert } from "../support/assert_close.ts";
import { emulateUnits, GPUS } from "../support/emulated_units.ts";

/**
 * Trials left out: of factors that are held while their memory changes, which the emulation reads late; and those that the
 * software driver takes minutes to compile.
 */
const LEFT_OUT = /overwrite|(loads.*(f16|storage))|attention \w+ (64|128|256)/;

for (const units of GPUS) {
  Deno.test(`kernels on matrix units are right at the sizes of ${units.name}'s, emulated`, async () => {
    using _ = emulateUnits(units);
    using gpu = await Gpu.open({ poison: true });
    const trials = trialsOf(gpu).filter(({ kernel }) => !LEFT_OUT.test(kernel));
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
