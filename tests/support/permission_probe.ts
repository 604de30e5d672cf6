/** Preloaded into a command: tells at its end, as the last line on stderr, what it may still do. */
globalThis.addEventListener("unload", () => {
  const state = (name: "net" | "write") => Deno.permissions.querySync({ name }).state;
  const hub = Deno.permissions.querySync({ name: "net", host: "huggingface.co" }).state;
  const text = `PROBE net ${state("net")} hub ${hub} write ${state("write")}\n`;
  Deno.stderr.writeSync(new TextEncoder().encode(text));
});
