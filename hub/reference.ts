/** A model or data set on the Hugging Face hub. */
export interface HubReference {
  /** Kind of repository. */
  readonly kind: "model" | "dataset";
  /** `org/name` */
  readonly name: string;
  /** Branch, tag or commit. */
  readonly revision: string;
  /** A file in it, where one is meant. */
  readonly path: string | undefined;
}

const NAME = "[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*";
const REVISION = "[A-Za-z0-9][A-Za-z0-9._/-]*?";
const PLAIN = new RegExp(`^(?<name>${NAME})(?:@(?<revision>${REVISION}))?$`);
const ADDRESS = new RegExp(
  `^hf://(?<dataset>datasets/)?(?<name>${NAME})(?:@(?<revision>[A-Za-z0-9][A-Za-z0-9._-]*))?(?:/(?<path>.+))?$`,
);

/**
 * Reads `org/name`, `org/name@revision` and `hf://[datasets/]org/name[@revision][/path]`; undefined for anything else.
 * A path on this machine can look like the first form: look there first.
 */
export function parseHubReference(text: string): HubReference | undefined {
  const groups = (ADDRESS.exec(text) ?? PLAIN.exec(text))?.groups;
  if (!groups) return undefined;
  return {
    kind: groups.dataset ? "dataset" : "model",
    name: groups.name!,
    revision: groups.revision ?? "main",
    path: groups.path,
  };
}

/** Writes a reference as users do: `org/name@revision`. */
export function hubAddress({ kind, name, revision }: HubReference): string {
  return `${kind === "dataset" ? "hf://datasets/" : ""}${name}${revision === "main" ? "" : `@${revision}`}`;
}
