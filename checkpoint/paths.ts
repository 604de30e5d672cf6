import { quote } from "../text.ts";
import { dirname, join, sep } from "./deps.ts";
import { UserError } from "../errors.ts";
import { errorCode } from "./files.ts";

const MAX_SEGMENT_BYTES = 255;
const MAX_NAME_LENGTH = 1024;

/** Names that Windows gives to devices, in every folder and with any extension. */
const DEVICES = /^(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?$/i;

/** Says what is wrong with a name under the rules of POSIX and Windows together; undefined if nothing. */
function nameProblem(name: string): string | undefined {
  if (name === "") return "it is empty";
  if (name.length > MAX_NAME_LENGTH) return `it is longer than ${MAX_NAME_LENGTH} characters`;
  if (!name.isWellFormed()) return "it is not valid Unicode";
  // deno-lint-ignore no-control-regex
  if (/[\u0000-\u001f\u007f-\u009f]/.test(name)) return "it holds a control character";
  if (name.includes("\\")) return "it holds a backslash";
  if (name.startsWith("/")) return "it is an absolute path";
  if (/[<>:"|?*]/.test(name)) return 'it holds one of < > : " | ? *';
  for (const segment of name.split("/")) {
    if (segment === "") return "it has an empty part";
    if (segment === "." || segment === "..") return `it has the part "${segment}"`;
    if (/[. ]$/.test(segment)) return "a part ends in a dot or a space";
    if (DEVICES.test(segment)) return `"${segment}" is the name of a device on Windows`;
    if (new TextEncoder().encode(segment).length > MAX_SEGMENT_BYTES) {
      return `a part is longer than ${MAX_SEGMENT_BYTES} bytes`;
    }
  }
  return undefined;
}

/** The real path of `path`, or of the nearest folder above it that exists. */
function realExisting(path: string): string {
  for (let at = path;; at = dirname(at)) {
    try {
      return Deno.realPathSync(at);
    } catch (error) {
      if (errorCode(error) !== "ENOENT" || dirname(at) === at) throw error;
    }
  }
}

function isLink(path: string): boolean {
  try {
    return Deno.lstatSync(path).isSymlink;
  } catch (error) {
    if (errorCode(error) === "ENOENT") return false;
    throw error;
  }
}

/**
 * Joins a name that came from a file or the network to a folder of ours: the only way such a name becomes
 * a path. Refuses, with a {@linkcode UserError}, every name that is absolute, climbs, or means something
 * special on POSIX or Windows, and every path whose folder leaves `root` through a symbolic link.
 *
 * `plain` allows no subfolders. `links: "follow"` lets the last part be a link to anywhere, which the cache
 * of the Hugging Face hub uses for model files; the default refuses, as is right for writing.
 */
export function safeJoin(
  root: string,
  untrustedName: string,
  { plain = false, links = "refuse" }: { plain?: boolean; links?: "follow" | "refuse" } = {},
): string {
  const problem = nameProblem(untrustedName) ??
    (plain && untrustedName.includes("/") ? "it must name a file in the same folder" : undefined);
  if (problem !== undefined) {
    throw new UserError(`Refused the file name ${quote(untrustedName)} in "${root}": ${problem}`);
  }
  const path = join(root, ...untrustedName.split("/"));
  const realRoot = realExisting(root);
  const realParent = realExisting(dirname(path));
  const inside = realRoot.endsWith(sep) ? realRoot : realRoot + sep;
  // While the root itself does not exist yet, both resolve to the same folder above it.
  if (realParent !== realRoot && !realParent.startsWith(inside)) {
    throw new UserError(`Refused the file name ${quote(untrustedName)} in "${root}": a link leads outside`);
  }
  if (links === "refuse" && isLink(path)) {
    throw new UserError(`Refused the file name ${quote(untrustedName)} in "${root}": it is a symbolic link`);
  }
  return path;
}
