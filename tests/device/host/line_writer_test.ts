import { assert, assertEquals } from "@std/assert";
import { createPipe, Descriptor, LineWriter, readNow } from "../../../device/host/mod.ts";
import { until } from "../../until.ts";

const LINE = "x".repeat(999);

/** Everything that a pipe holds at the moment. */
function drain(reader: Parameters<typeof readNow>[0]): string {
  const piece = new Uint8Array(65536);
  let text = "";
  for (let count = 0; (count = readNow(reader, piece, piece.length)) > 0;) {
    text += new TextDecoder().decode(piece.subarray(0, count));
  }
  return text;
}

for (const blocking of [true, false]) {
  const kind = blocking ? "blocking" : "nonblocking";
  Deno.test(`LineWriter does not wait for the stuck reader of a ${kind} pipe, and says what it dropped`, async () => {
    const [reader, writer] = createPipe();
    try {
      if (!blocking) writer.setNonblocking();
      const lines = new LineWriter(writer.number);
      // Twice what the pipe and the queue hold together.
      for (let i = 0; i < 700; i++) lines.write(LINE);
      assertEquals(await lines.flush(20), false);
      assert(lines.dropped > 300 && lines.dropped < 700, `${lines.dropped}`);
      const dropped = lines.dropped;
      let text = "";
      lines.write("the last");
      await until(() => {
        text += drain(reader);
        return text.includes("were dropped");
      }, "the lines arrive");
      await lines.flush(10_000);
      text += drain(reader);
      assertEquals(text.split("\n").filter((line) => line === LINE).length, 700 - dropped);
      assert(
        text.includes(`viommu: warn: ${dropped} log lines were dropped`),
        text.slice(-200),
      );
    } finally {
      reader.close();
      writer.close();
    }
  });
}

Deno.test("LineWriter outlives a full disk, and writes what it kept once there is room", async () => {
  const [reader, writer] = createPipe();
  const [unused, target] = createPipe();
  const library = Deno.dlopen("libc.so.6", {
    dup2: { parameters: ["i32", "i32"], result: "i32" },
    open: { parameters: ["buffer", "i32"], result: "i32" },
  });
  const lines = new LineWriter(target.number);
  try {
    const device = library.symbols.open(new TextEncoder().encode("/dev/full\0"), 1);
    library.symbols.dup2(device, target.number);
    new Descriptor(device).close();
    lines.write("one");
    lines.write("two");
    assertEquals(await lines.flush(20), false);
    library.symbols.dup2(writer.number, target.number);
    assertEquals(await lines.flush(10_000), true);
    assertEquals(drain(reader), "one\ntwo\n");
  } finally {
    lines.close();
    for (const each of [reader, writer, unused, target]) each.close();
    library.close();
  }
});
