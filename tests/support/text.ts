/** Fails unless `text` holds `part`, showing both. */
export function assertIncludes(text: string, part: string): void {
  if (!text.includes(part)) throw new Error(`Expected ${JSON.stringify(part)} in:\n${text}`);
}
