/** Tests that a device, or what is granted, may rule out. */

/** Defines a test that is skipped by name where there is a reason, which its name then says. */
export function testUnless(reason: string | undefined, name: string, fn: () => Promise<void>): void {
  const note = reason === undefined ? "" : ` (skipped: ${reason})`;
  Deno.test({ name: `${name}${note}`, ignore: reason !== undefined, fn });
}
