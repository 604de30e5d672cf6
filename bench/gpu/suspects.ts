/** What makes matrix units wrong on a device, by the trials that failed there and by what toggles of Dawn change. */
import { type MatrixTopic, topicOf } from "../../kernels/matrix_trials/matrix_trials.ts";
import type { Verdict, Wrong } from "../../kernels/refusal.ts";
import type { UnitsResult } from "./units.ts";

/** Names a suspect for what is wrong, in words. */
const SUSPECTS: Record<Exclude<MatrixTopic, "loads">, string> = {
  overwrite: "(b) a matrix that was loaded follows the memory under it when that is overwritten",
  "f16 stores": "(c') f16 written one by one is not what is read back: f16 itself is wrong",
  reset: "(d) sums do not begin at zero each time",
  sums: "(f) sums that go through memory come back wrong",
  lanes: "(g) lanes are not numbered or shuffled as kernels count on",
};

/** Units of one set of toggles. */
export interface UnitsRun {
  /** Names of the toggles; empty for the usual ones. */
  readonly toggles: string;
  readonly units: UnitsResult;
}

/** Says which suspects the trials name, one line each; that none is, or that nothing was tried. */
export function suspectsOf(runs: readonly UnitsRun[]): string[] {
  const usual = runs.find(({ toggles }) => toggles === "")?.units;
  if (!usual) return ["Matrix units were not tried."];
  if (usual.unit === null) return [`"${usual.adapter}" has no matrix units on Dawn.`];
  const wrong = usual.verdicts.filter(({ ok }) => !ok);
  const lines = wrong.length === 0 ? [] : suspectsOfTrials(wrong);
  const isAttentionWrong = ({ units }: UnitsRun) =>
    units.verdicts.some(({ kernel, ok }) => kernel.startsWith("attention") && !ok);
  const helpful = runs.filter((run) => run.toggles !== "" && !isAttentionWrong(run)).map(({ toggles }) =>
    toggles
  );
  if (isAttentionWrong({ toggles: "", units: usual })) {
    if (lines.length === 0) {
      lines.push(
        "Attention on matrix units is wrong, though all it counts on is right alone: none of (a) to (f) by itself",
      );
    }
    for (const toggles of helpful) {
      const what = /reconvergence/.test(toggles)
        ? "(c) kernels are compiled for maximal reconvergence"
        : /robustness/.test(toggles)
        ? "(a) or what Dawn adds to keep loads in bounds"
        : "a toggle";
      lines.push(`${what}: attention is right with ${toggles}`);
    }
  }
  return lines.length > 0 ? lines : [`Matrix units of ${usual.unit}: all is right, no suspect.`];
}

function suspectsOfTrials(wrong: readonly Verdict[]): string[] {
  const lines: string[] = [];
  for (const topic of Object.keys(SUSPECTS) as (keyof typeof SUSPECTS)[]) {
    const of = wrong.filter(({ kernel }) => topicOf(kernel) === topic);
    if (of.length > 0) lines.push(`${SUSPECTS[topic]} (${of.length} trials)`);
  }
  const loads = wrong.filter(({ kernel }) => topicOf(kernel) === "loads");
  if (loads.length > 0) lines.push(suspectOfLoads(loads));
  return lines;
}

/** Right by rows alone is the transposing load; some lines alone are strides or alignment. */
function suspectOfLoads(loads: readonly Verdict[]): string {
  const failed = loads.find(({ failure }) => failure !== null);
  if (failed) return `(e) loads are refused: ${failed.kernel}: ${failed.failure}`;
  const parts = loads.flatMap(({ wrong }) => wrong.map(({ part }: Wrong) => part));
  const places = loads.every(({ kernel }) => kernel.endsWith("known at run time"))
    ? ", where places are known at run time alone: what Dawn adds to keep loads in bounds"
    : "";
  const kinds = [...new Set(parts.map((part) => part.split(",")[0]!))];
  if (kinds.length === 1 && kinds[0] === "Right by rows") {
    return `(a) Right loaded by rows, the transposing load${places}`;
  }
  const lines = [...new Set(parts.map((part) => /lines of (\d+)/.exec(part)![1]!))];
  return `(e) loads of ${kinds.join(" and ")} from lines of ${lines.join(", ")}${places}`;
}
