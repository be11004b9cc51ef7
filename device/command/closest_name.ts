/**
 * The name that differs least from what was typed: in at most one character of three, in upper and lower case alike.
 *
 * @returns undefined if none is that close, or several are equally close.
 */
export function closestName(typed: string, names: readonly string[]): string | undefined {
  let least = Infinity;
  let found: string | undefined;
  for (const name of names) {
    const limit = Math.max(1, Math.floor(name.length / 3));
    // What differs in length alone by more is not looked at: a text may be long.
    if (Math.abs(name.length - typed.length) > limit) continue;
    const distance = editDistance(typed.toLowerCase(), name.toLowerCase());
    if (distance > Math.min(limit, least)) continue;
    found = distance < least ? name : undefined;
    least = distance;
  }
  return found;
}

/** How many characters must be inserted, removed, replaced, or swapped with the next one, to get from one to the other. */
function editDistance(one: string, other: string): number {
  let beforeLast: readonly number[] = [];
  let last: readonly number[] = Array.from({ length: other.length + 1 }, (_, i) => i);
  for (let i = 1; i <= one.length; i++) {
    const row = [i];
    for (let j = 1; j <= other.length; j++) {
      const differs = one[i - 1] === other[j - 1] ? 0 : 1;
      row[j] = Math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + differs);
      if (i > 1 && j > 1 && one[i - 1] === other[j - 2] && one[i - 2] === other[j - 1]) {
        row[j] = Math.min(row[j], beforeLast[j - 2] + 1);
      }
    }
    beforeLast = last;
    last = row;
  }
  return last[other.length];
}
