/**
 * Frames behind memory of this process, read from its page map by other code than what is tested.
 *
 * @module
 */

/** CAP_SYS_ADMIN, as a bit of the masks in `/proc/PID/status`. */
const CAP_SYS_ADMIN = 1n << 21n;

/** Whether this process may see frames in a page map. */
export const seesFrames: boolean = (() => {
  const found = /^CapEff:\s*([0-9a-f]+)$/m.exec(Deno.readTextFileSync("/proc/self/status"));
  return found !== null && (BigInt(`0x${found[1]}`) & CAP_SYS_ADMIN) !== 0n;
})();

/** The frame behind byte `offset` of a buffer, which is read first, so that there is one. */
export function frameOf(buffer: ArrayBuffer, offset: number): number {
  const value = new Uint8Array(buffer)[offset];
  const address = Deno.UnsafePointer.value(Deno.UnsafePointer.of(buffer)) + BigInt(offset);
  using file = Deno.openSync("/proc/self/pagemap");
  file.seekSync(address / 4096n * 8n, Deno.SeekMode.Start);
  const entry = new BigUint64Array(1);
  file.readSync(new Uint8Array(entry.buffer));
  const isPresent = (entry[0] & 2n ** 63n) !== 0n;
  if (!isPresent || value === undefined) throw new Error(`There is no frame at byte ${offset}`);
  return Number(entry[0] & (2n ** 55n - 1n));
}
