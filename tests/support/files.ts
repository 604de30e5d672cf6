/** The files that tests read, and folders for those they write. */

/** Golden models, adapters and figures, made with PyTorch and bitsandbytes. */
export const GOLDEN = new URL("../golden", import.meta.url).pathname;

/** Runs `use` with a new folder that is removed afterwards, whatever happens. */
export async function withFolder<T>(use: (folder: string) => T | Promise<T>): Promise<T> {
  const folder = await Deno.makeTempDir({ prefix: "longreach-test-" });
  try {
    return await use(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** The names left in a folder, sorted. */
export function namesIn(folder: string): string[] {
  return [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
}
