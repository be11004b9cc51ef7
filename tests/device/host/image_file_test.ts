/** Disk images: when one can be opened, and what is read and written. */
import { assertEquals, assertThrows } from "@std/assert";
import { ImageFile, IoVectors } from "../../../device/host/mod.ts";

function withImage(size: number, test: (path: string) => void): void {
  const path = Deno.makeTempFileSync();
  try {
    Deno.writeFileSync(path, new Uint8Array(size).fill(7));
    test(path);
  } finally {
    Deno.removeSync(path);
  }
}

/** A list of pieces, each of `lengths` bytes, filled with 1, 2, 3 …. */
function vectorsOf(...lengths: readonly number[]): { vectors: IoVectors; pieces: Uint8Array[] } {
  const vectors = new IoVectors(lengths.length);
  const pieces = lengths.map((length, i) => new Uint8Array(length + 64).fill(i + 1));
  pieces.forEach((piece, i) => vectors.add(piece, 16, lengths[i]));
  return { vectors, pieces };
}

Deno.test("ImageFile reads into and writes from scattered memory at an offset", () => {
  withImage(4096, (path) => {
    using image = ImageFile.open(path, true);
    assertEquals(image.size, 4096);
    const { vectors } = vectorsOf(100, 1, 300);
    assertEquals([vectors.count, vectors.byteLength], [3, 401]);
    assertEquals(image.write(vectors, 1000, true), 401);
    const file = Deno.readFileSync(path);
    assertEquals([file[999], file[1000], file[1100], file[1101], file[1401]], [7, 1, 2, 3, 7]);
    const back = vectorsOf(101, 300);
    for (const piece of back.pieces) piece.fill(0);
    assertEquals(image.read(back.vectors, 1000), 401);
    assertEquals([back.pieces[0][15], back.pieces[0][16], back.pieces[0][116]], [0, 1, 2]);
    assertEquals([back.pieces[1][16], back.pieces[1][315], back.pieces[1][316]], [3, 3, 0]);
    assertEquals(image.read(back.vectors, 4000), 96, "up to the end");
    assertEquals(image.read(back.vectors, 5000), 0);
    assertEquals(image.sync(), 0);
  });
});

Deno.test("IoVectors joins pieces that follow each other and says when it is full", () => {
  const vectors = new IoVectors(2);
  const bytes = new Uint8Array(4096);
  assertEquals(vectors.add(bytes, 0, 100), true);
  assertEquals(vectors.add(bytes, 100, 50), true);
  assertEquals([vectors.count, vectors.byteLength], [1, 150]);
  assertEquals(vectors.add(bytes, 200, 1), true);
  assertEquals(vectors.add(bytes, 300, 1), false);
  assertEquals([vectors.count, vectors.byteLength], [2, 151]);
  vectors.clear();
  assertEquals(vectors.add(bytes, 201, 1), true);
  assertEquals([vectors.count, vectors.byteLength], [1, 1]);
});

Deno.test("an ImageFile is one writer's or several readers', and says so in one line", () => {
  withImage(512, (path) => {
    const writer = ImageFile.open(path, true);
    assertThrows(() => ImageFile.open(path, false), RangeError, "another process uses it");
    writer.close();
    using _one = ImageFile.open(path, false);
    using other = ImageFile.open(path, false);
    assertThrows(() => ImageFile.open(path, true), RangeError, "another process uses it");
    assertEquals(other.write(vectorsOf(1).vectors, 0, false), -1, "not opened for writing");
  });
  assertThrows(() => ImageFile.open("/nowhere/at/all", false), RangeError, "ENOENT");
  assertThrows(() => ImageFile.open("/dev/null", true), RangeError, "neither a file nor a block");
});

Deno.test("ImageFile punches holes and tells of a sync on another thread", async () => {
  const path = await Deno.makeTempFile();
  await Deno.writeFile(path, new Uint8Array(65536).fill(9));
  {
    using image = ImageFile.open(path, true);
    assertEquals(image.punch(4096, 8192), 0);
    const file = await Deno.readFile(path);
    assertEquals([file.length, file[4095], file[4096], file[12287], file[12288]], [
      65536,
      9,
      0,
      0,
      9,
    ]);
    assertEquals(await image.syncOnThread(), true);
  }
  await Deno.remove(path);
});
