/**
 * Prints the hosts that tasks of `deno.json` grant besides the hub's own, each behind a comma: the one of HF_ENDPOINT, and
 * those of LONGREACH_HUB_HOSTS. What is none is left out; the command then says what is wrong.
 */

/** Names of this machine: a mirror on it may keep its files behind another one. */
const LOOPBACK = ["127.0.0.1", "localhost", "[::1]"];

/** Hosts of a mirror: itself and those below it, and what is listed with commas. */
export function hostsOf(endpoint: string, more: string): string[] {
  const host = URL.parse(endpoint)?.hostname ?? "";
  const isName = /^[a-z0-9.-]+$/i.test(host) && !/^[\d.]+$/.test(host);
  const own = LOOPBACK.includes(host) ? LOOPBACK : isName ? [host, `*.${host}`] : host === "" ? [] : [host];
  const others = more.split(",").map((each) => each.trim());
  return [
    ...own,
    ...others.filter((each) => /^((\*\.)?[a-z0-9][a-z0-9.-]*|\[[0-9a-f:]+\])(:\d{1,5})?$/i.test(each)),
  ];
}

if (import.meta.main) {
  const env = (name: string) => Deno.env.get(name) ?? "";
  const hosts = hostsOf(env("HF_ENDPOINT"), env("LONGREACH_HUB_HOSTS"));
  Deno.stdout.writeSync(new TextEncoder().encode(hosts.map((each) => `,${each}`).join("")));
}
