/** Counts the items with which both begin: tokens of two lists, UTF-16 units of two texts. */
export function commonPrefix(a: ArrayLike<unknown>, b: ArrayLike<unknown>): number {
  let length = 0;
  while (length < a.length && length < b.length && a[length] === b[length]) length++;
  return length;
}
