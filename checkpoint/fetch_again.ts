/** A file in the cache of the Hugging Face hub: its repository and commit. */
const SNAPSHOT = /(?:^|[/\\])(model|dataset)s--([^/\\]+)[/\\]snapshots[/\\]([0-9a-f]{40})(?:[/\\]|$)/;

/** Remedy for a file that is cut or damaged: a sentence without its full stop. */
export function fetchAgain(path: string): string {
  const [, kind, name, commit] = SNAPSHOT.exec(path) ?? [];
  const reference = `${kind === "dataset" ? "hf://datasets/" : ""}${name?.replace("--", "/")}@${commit}`;
  return "The download may be incomplete: run download again, " +
    (name === undefined
      ? "or copy the file anew"
      : `which checks and mends it: longreach download --name ${reference}`);
}
