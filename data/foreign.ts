/** Files that are no training data as they stand: what they are, and what to do with them. */
import { UserError } from "../errors.ts";

const ROWS = "one JSON object per line in a .jsonl file";

/** By the endings of names. */
const ENDINGS: readonly (readonly [endings: string, what: string, remedy: string])[] = [
  ["csv|tsv|psv", "a table of separated values", `Save its rows as ${ROWS}`],
  ["xlsx?|ods|numbers", "a spreadsheet", `Save its rows as ${ROWS}`],
  [
    "docx?|odt|rtf|pages|pptx?|epub|mobi",
    "a document of a word processor or a book",
    "Save it as plain text (.txt)",
  ],
  ["html?|xhtml|mhtml", "a web page", "Save its text, without the markup, as .txt"],
  ["arrow|feather|ipc|avro|orc", "a table of a binary format", "Save it as .parquet or .jsonl"],
  [
    "h5|hdf5|np[yz]|pkl|pickle|pt|pth|mat|db|sqlite3?|safetensors|gguf",
    "binary data",
    `Save its rows as ${ROWS}`,
  ],
  ["png|jpe?g|gif|webp|wav|mp[34]|flac", "an image or a recording", "Only text can be trained on"],
  [
    "zst|bz2|xz|lz4|zip|tar|tgz|7z|rar",
    "a compressed file",
    "Of these only .gz can be read: unpack it first",
  ],
];

/** By what stands at their beginning, whatever they are named. */
const BEGINNINGS: readonly (readonly [beginning: string, what: string, remedy: string])[] = [
  [
    "PK\x03\x04",
    "a ZIP archive, or a document or spreadsheet (they are such)",
    "Unpack it, or save it as .txt or .jsonl",
  ],
  ["%PDF-", "a PDF", "Give it a name that ends in .pdf"],
  ["PAR1", "parquet", "Give it a name that ends in .parquet"],
  ["ARROW1", "an Arrow table", "Save it as .parquet or .jsonl"],
  ["\x1f\x8b", "compressed with gzip", "Give it a name that ends in .gz, such as .jsonl.gz"],
  ["\x28\xb5\x2f\xfd", "compressed with zstd", "Of compressed files only .gz can be read: unpack it first"],
  ["BZh", "compressed with bzip2", "Of compressed files only .gz can be read: unpack it first"],
  ["\xfd7zXZ", "compressed with xz", "Of compressed files only .gz can be read: unpack it first"],
  ["\xd0\xcf\x11\xe0", "a document of an old Office", "Save it as .txt, or its rows as .jsonl"],
  ["{\\rtf", "a document in rich text", "Save it as plain text (.txt)"],
  ["\x89PNG", "an image", "Only text can be trained on"],
  ["\x89HDF", "HDF5 data", `Save its rows as ${ROWS}`],
  ["\x93NUMPY", "a NumPy array", `Save its rows as ${ROWS}`],
  ["SQLite format 3", "a database", `Save its rows as ${ROWS}`],
  ["GGUF", "a model", "Name a file with text"],
];

/** @throws {UserError} if the name, or the first bytes where they are given, are of a file that cannot be read as text */
export function refuseForeign(path: string, start?: Uint8Array): void {
  const found = start === undefined
    ? ENDINGS.find(([endings]) => new RegExp(`\\.(?:${endings})$`, "i").test(path))
    : BEGINNINGS.find(([beginning]) =>
      start.length >= beginning.length && [...beginning].every((char, i) => start[i] === char.charCodeAt(0))
    );
  if (found) throw new UserError(`Cannot read "${path}" as text or rows: it is ${found[1]}. ${found[2]}`);
}
