/** The command lines for QEMU, as `qemu-args` and `serve` print them. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { chardevArgument, qemuCommands } from "../../../device/command/qemu_arguments.ts";
import { viommu } from "./in_process.ts";

const SOCKET = ["--socket-path", "/run/v.sock"];

/** Commands as a shell sees them: lines that end with a backslash go on, comments are left out. */
function commands(out: string): readonly string[] {
  return out.replaceAll(" \\\n", "").split("\n").filter((line) =>
    line !== "" && !line.startsWith("#")
  );
}

Deno.test("qemu-args prints whole commands for x86 and arm64, with the devices behind the IOMMU", async () => {
  const device = ["--endpoint-device", "blk:00:05.0,socket=/run/b.sock,file=disk.img"];
  const { code, out, err } = await viommu(["qemu-args", ...SOCKET, ...device]);
  assertEquals([code, err], [0, ""]);
  const [viot, x86, dump, dtb, arm, ...rest] = commands(out);
  assertEquals(rest, []);
  assertEquals(viot, "viommu viot --iommu 00:02.0 -o viot.aml");
  assertEquals(dtb, "viommu dtb --iommu 00:02.0 -i virt.dtb -o viommu.dtb");
  assert(dump.startsWith("qemu-system-aarch64 ") && dump.includes("dumpdtb=virt.dtb"), dump);
  for (const guest of [x86, arm]) {
    assertStringIncludes(guest, "-chardev socket,id=viommu,path=/run/v.sock");
    assertStringIncludes(guest, "-chardev socket,id=ep40,path=/run/b.sock");
    assertStringIncludes(guest, "size=512M");
  }
  assert(x86.endsWith("-acpitable file=viot.aml") && arm.endsWith("-dtb viommu.dtb"));
});

Deno.test("qemu-args says what serve has to be told, by the guest's memory", async () => {
  const rng = ["--endpoint-device", "rng:00:03.0,socket=/r"];
  const run = async (...args: readonly string[]) =>
    (await viommu(["qemu-args", ...SOCKET, ...args])).out;
  assertStringIncludes(await run(...rng, "--memory", "1G"), "--input-range 0-0x3fffffff,");
  assertStringIncludes(
    await run(...rng, "--arch", "aarch64"),
    "--input-range 0x40000000-0x5fffffff",
  );
  assertStringIncludes(await run("--arch", "aarch64"), "--msi-region none");
  assert(!(await run("--arch", "x86_64")).includes("#"));
});

Deno.test("what viommu commands are printed are ones that viommu takes", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const guest = { socketPath: "/run/v.sock", endpoints: [], hostDevices: [], memory: 2 ** 29 };
    for (const command of commands(qemuCommands("x86_64", guest).join("\n"))) {
      if (!command.startsWith("viommu ")) continue;
      const args = command.split(" ").slice(1).map((arg) =>
        arg.endsWith(".aml") ? `${folder}/${arg}` : arg
      );
      assertEquals(await viommu(args), { code: 0, out: "", err: "" }, command);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a path of any characters is one word of the shell, and one path for QEMU", async () => {
  for (const path of ["/run/v.sock", "/a b/it's,$HOME", '/ä/\\ "x"']) {
    const argument = chardevArgument("viommu", path);
    const { stdout } = await new Deno.Command("bash", {
      args: ["-c", `printf '%s\\n' ${argument}`],
    }).output();
    assertEquals(new TextDecoder().decode(stdout).trimEnd().split("\n"), [
      "-chardev",
      `socket,id=viommu,path=${path.replaceAll(",", ",,")}`,
    ]);
  }
});
