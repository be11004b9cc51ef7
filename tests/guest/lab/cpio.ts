/**
 * Writes the archive form that Linux unpacks as its first file system (cpio "newc", see
 * `Documentation/driver-api/early-userspace/buffer-format.rst` of the kernel).
 *
 * @module
 */
import { concat } from "@std/bytes";

/** A file or folder of an archive. */
export interface ArchiveEntry {
  /** Path without a leading slash. */
  readonly path: string;
  /** Type and permission bits as in `st_mode`. */
  readonly mode: number;
  readonly content?: Uint8Array;
  /** Major and minor number of a device node. */
  readonly device?: readonly [major: number, minor: number];
}

/** Type and permissions of a folder, an executable file, a plain file and a character device. */
export const FOLDER = 0o040755;
export const EXECUTABLE = 0o100755;
export const PLAIN = 0o100644;
export const CHARACTER_DEVICE = 0o020600;

/** The archive of `entries`, in their order (a folder before what it holds). */
export function cpioArchive(entries: readonly ArchiveEntry[]): Uint8Array {
  const parts: Uint8Array[] = [];
  const all = [...entries, { path: "TRAILER!!!", mode: 0 }];
  all.forEach((entry, index) => {
    const name = new TextEncoder().encode(`${entry.path}\0`);
    const content = "content" in entry && entry.content ? entry.content : new Uint8Array(0);
    const device = "device" in entry && entry.device ? entry.device : [0, 0];
    const links = 1;
    const fields = [
      index + 1,
      entry.mode,
      0,
      0,
      links,
      0,
      content.length,
      0,
      0,
      device[0],
      device[1],
      name.length,
      0,
    ];
    const header = "070701" + fields.map((one) => one.toString(16).padStart(8, "0")).join("");
    // Name and content each end on a multiple of four bytes; the header has 110.
    parts.push(new TextEncoder().encode(header), name, padding(110 + name.length));
    parts.push(content, padding(content.length));
  });
  return concat(parts);
}

function padding(length: number): Uint8Array {
  return new Uint8Array((4 - length % 4) % 4);
}

/** The same bytes, gzip-compressed. */
export async function gzip(bytes: Uint8Array): Promise<Uint8Array> {
  const packed = new Blob([new Uint8Array(bytes)]).stream()
    .pipeThrough(new CompressionStream("gzip"));
  return new Uint8Array(await new Response(packed).arrayBuffer());
}
