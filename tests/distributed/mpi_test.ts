import { assertEquals } from "../support/assert_close.ts";
import { GOLDEN, namesIn, withFolder } from "../support/files.ts";
import { findMpis, runJob } from "../support/mpi.ts";
import { assertIncludes } from "../support/text.ts";

const COLLECTIVES = new URL("collectives.ts", import.meta.url).pathname;
const mpis = findMpis();
if (mpis.length === 0) {
  Deno.test({
    name:
      "Ranks over MPI: left out, no mpirun is installed (Debian and Ubuntu: apt-get install openmpi-bin libopenmpi-dev)",
    ignore: true,
    fn: () => {},
  });
}

for (const { name, mpirun, library } of mpis) {
  Deno.test(`Ranks of ${name} tell each other what ranks of one process do, and sum alike every time`, async () => {
    const { code, stderr } = await runJob(
      `${mpirun(3)} deno run --no-prompt --no-check --allow-ffi ${COLLECTIVES} ${library}`,
    );
    assertEquals([code, stderr], [0, ""]);
  });
}

const TRAIN =
  `./longreach train --model_name_or_path=${GOLDEN}/mha --train_file=${GOLDEN}/train.jsonl --sft=false ` +
  "--model_max_length=64 --lora_rank=2 --max_steps=1 --dataset_cache_dir=false";

Deno.test({
  name: "mpirun starts ./longreach train as it is typed; rank 0 alone tells and writes",
  ignore: mpis.length === 0,
  fn: async () => {
    await withFolder(async (folder) => {
      const { code, stderr } = await runJob(`${mpis[0]!.mpirun(2)} ${TRAIN} --output_dir=${folder}/out`);
      assertEquals([code, stderr.match(/step 1\/1/g)?.length], [0, 1], stderr);
      assertEquals(namesIn(`${folder}/out`).includes("adapter_model.safetensors"), true);
    });
  },
});

Deno.test({
  name: "Ranks of other settings are told apart before the first step, and other commands want one process",
  ignore: mpis.length === 0,
  fn: async () => {
    await withFolder(async (folder) => {
      const { mpirun } = mpis[0]!;
      const train = `${TRAIN} --output_dir=${folder}/out`;
      const differing = await runJob(
        `${mpirun(1)} ${train} --learning_rate=0.5 : -np 1 ${train} --learning_rate=0.25`,
      );
      assertIncludes(
        differing.stderr,
        "Rank 0: The ranks of this job must be alike, but learning_rate is 0.25 on rank 1",
      );
      assertEquals([differing.code, differing.stderr.includes("step 1/1")], [2, false]);
      const merge = await runJob(`${mpirun(2)} ./longreach merge`);
      assertIncludes(merge.stderr, "merge runs as one process: start it without mpirun or srun");
      const lost = await runJob(`env LONGREACH_MPI_LIBRARY=/nowhere/libmpi.so.40 ${mpirun(1)} ${train}`);
      assertIncludes(lost.stderr, 'Cannot use "/nowhere/libmpi.so.40" for MPI');
      assertEquals(lost.code, 1);
    });
  },
});
