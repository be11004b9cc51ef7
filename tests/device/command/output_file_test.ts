/** Output files: whole or not at all, and as they were set up. */
import { assertEquals, assertRejects } from "@std/assert";
import { CommandError } from "../../../device/command/errors.ts";
import { writeAll, writeFile } from "../../../device/command/output_file.ts";
import { namesIn, withFolder } from "./test_folder.ts";

const OLD = new TextEncoder().encode("old");
const NEW = new TextEncoder().encode("new contents");

Deno.test("a file that cannot be written whole stays as it was, and nothing is left beside it", async () => {
  await withFolder(async (folder) => {
    const path = `${folder}/out`;
    await Deno.writeFile(path, OLD);
    const full = new Deno.errors.WriteZero("No space left on device (os error 28)");
    const failing = Object.assign(full, { code: "ENOSPC" });
    await assertRejects(
      () =>
        writeFile(path, async (file) => {
          await writeAll(file, NEW.subarray(0, 3));
          throw failing;
        }),
      CommandError,
      `Cannot write ${path}: the disk is full (ENOSPC); make room, or write elsewhere`,
    );
    assertEquals([await Deno.readFile(path), await namesIn(folder)], [OLD, ["out"]]);
    await assertRejects(() => writeFile(folder, () => Promise.resolve()), CommandError, "folder");
  });
});

Deno.test("a file keeps its permissions, and a symbolic link stays one", async () => {
  await withFolder(async (folder) => {
    await Deno.writeFile(`${folder}/file`, OLD, { mode: 0o640 });
    await Deno.symlink("file", `${folder}/link`);
    await writeFile(`${folder}/link`, (file) => writeAll(file, NEW));
    assertEquals(await Deno.readFile(`${folder}/file`), NEW);
    assertEquals((await Deno.stat(`${folder}/file`)).mode! & 0o777, 0o640);
    assertEquals((await Deno.lstat(`${folder}/link`)).isSymlink, true);
    assertEquals(await namesIn(folder), ["file", "link"]);
  });
});

Deno.test("a device is written as it is", async () => {
  await writeFile("/dev/null", (file) => writeAll(file, NEW));
  await assertRejects(
    () => writeFile("/dev/full", (file) => writeAll(file, NEW)),
    CommandError,
    "Cannot write /dev/full: the disk is full (ENOSPC)",
  );
  assertEquals((await Deno.stat("/dev/null")).isFile, false);
});
