/** `study`: the papers' comparisons on the demo model, as a report with tables and plots. */
import { nearest } from "../nearest.ts";
import { formatCount, quote } from "../text.ts";
import { EXPERIMENTS } from "../demo/study/experiments.ts";
import { UserError } from "../errors.ts";
import { list, text, whole } from "../train_args/values.ts";
import { type BuiltCommand, newCommand, optionalFlag, valueFlag } from "./flags.ts";
import { formatJson } from "./format.ts";
import { gpuOptionsOf } from "./gpu_options.ts";
import type { Io } from "./io.ts";
import { stagesOn } from "./stages.ts";

const IDS = EXPERIMENTS.map(({ id }) => id);

/** The command. */
export function build(summary: string, io: Io): BuiltCommand {
  return newCommand("study", summary, io, {
    examples: ["study --steps 130 --seeds 3 --report_dir output/study"],
  })
    .addOption(valueFlag("steps", "steps of a run, of 1024 tokens each", whole(4), 130))
    .addOption(valueFlag("seeds", "runs of each kind", whole(1, 100), 3))
    .addOption(
      optionalFlag("only", `experiments to run, with commas between them: ${IDS.join(", ")}`, list(), "all"),
    )
    .addOption(valueFlag("output_dir", "folder for results and models", text("path"), "output/study"))
    .addOption(valueFlag("report_dir", "folder for study.md and its plots", text("path"), "output/study"))
    .action(async ({ json, webgpu, report_dir, ...options }) => {
      for (const id of options.only ?? []) checkId(id);
      const [{ runStudy }, { studyReport }] = await Promise.all([
        import("../demo/study/study.ts"),
        import("../demo/study/report.ts"),
      ]);
      const rows = await runStudy({ ...options, gpuOptions: gpuOptionsOf(io, webgpu) }, stagesOn(io));
      const command = `deno task study --steps ${options.steps} --seeds ${options.seeds}`;
      const { markdown, plots } = studyReport(rows, "study", command);
      await Deno.mkdir(`${report_dir}/study`, { recursive: true });
      for (const [name, svg] of plots) await Deno.writeTextFile(`${report_dir}/study/${name}`, svg);
      await Deno.writeTextFile(`${report_dir}/study.md`, markdown);
      io.out(
        json ? formatJson(rows) : `${formatCount(rows.length)} runs, report in ${report_dir}/study.md`,
      );
    });
}

function checkId(id: string): void {
  if (IDS.includes(id)) return;
  const near = nearest(id, IDS);
  const hint = near === null ? `they are ${IDS.join(", ")}` : `did you mean ${near}?`;
  throw new UserError(`--only: there is no experiment ${quote(id)}: ${hint}`, { kind: "usage" });
}
