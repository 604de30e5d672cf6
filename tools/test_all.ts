/**
 * Everything that must hold before a merge: format, lint, types with the frozen lock file, tests. `deno task test` runs
 * it; with paths behind it, only the tests in those. The last line of its output says how many checks and tests passed
 * and failed.
 */
import { check, CHECKS, conclude, type Count, tests } from "./checks.ts";

const counts: Count[] = [];
if (Deno.args.length === 0) {
  for (const [label, words] of CHECKS) counts.push(await check(label, words));
}
const from = Deno.env.get("INIT_CWD") ?? Deno.cwd();
counts.push(await tests(Deno.args.map((path) => path.startsWith("/") ? path : `${from}/${path}`)));
conclude(counts);
