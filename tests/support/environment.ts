/** What Python's hub client is told by its environment. */
const VARIABLES = ["HF_ENDPOINT", "HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HF_HUB_OFFLINE"];

/** Runs with these variables of the hub and no others, and puts back what was there. */
export async function withEnvironment(
  values: Record<string, string>,
  run: () => Promise<void>,
): Promise<void> {
  const kept = VARIABLES.map((name) => [name, Deno.env.get(name)] as const);
  VARIABLES.forEach((name) =>
    values[name] === undefined ? Deno.env.delete(name) : Deno.env.set(name, values[name])
  );
  try {
    await run();
  } finally {
    kept.forEach(([name, value]) => value === undefined ? Deno.env.delete(name) : Deno.env.set(name, value));
  }
}
