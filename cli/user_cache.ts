/** The folder on a user's machine for what can be made again. */

/**
 * `longreach` in the user's folder for caches.
 * @param env reads a variable of the environment
 * @returns `null` where that folder cannot be told
 */
export function userCacheFolder(
  env: (name: string) => string | undefined = permittedEnv,
  os: typeof Deno.build.os = Deno.build.os,
): string | null {
  const home = env("HOME");
  const folders = [
    env("XDG_CACHE_HOME"),
    os === "windows" ? env("LOCALAPPDATA") : undefined,
    home && (os === "darwin" ? `${home}/Library/Caches` : `${home}/.cache`),
  ];
  const folder = folders.find((each) => each !== undefined && each !== "");
  return folder === undefined ? null : `${folder}/longreach`;
}

/** A variable, or nothing where reading it is not allowed. */
export function permittedEnv(name: string): string | undefined {
  try {
    return Deno.env.get(name);
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) return undefined;
    throw error;
  }
}
