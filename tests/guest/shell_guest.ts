/**
 * `deno task guest`: a Linux guest with a shell, whose disk and entropy source are behind our IOMMU.
 *
 * Prepares the guest lab, starts `serve` and QEMU, and prints the two commands, so that both can be run by hand.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { cpioArchive, EXECUTABLE, gzip } from "./lab/cpio.ts";
import { type Lab, machineArguments, prepareLab } from "./lab/mod.ts";
import { DRIVERS, endpointArguments } from "./endpoint_machine.ts";
import { deviceArguments, serveCommand, viommu } from "./served_device.ts";
import { until } from "../until.ts";

const HELP = `Usage: deno task guest [--folder PATH]

Boots a Linux guest in QEMU, with a shell on this terminal. Its disk (00:06.0)
and its entropy source (00:03.0) are served by viommu behind the IOMMU; what
there is to see is printed before it boots. It ends with "poweroff -f" in the
guest, or with Ctrl-A X.

Options:
  --folder PATH   where sockets, disk and log are kept while it runs
                  (default /tmp/viommu-guest); it must not exist
`;
/** Bytes of the disk. */
const DISK = 80 << 20;

/** Runs the guest. Returns the exit code. */
async function main(args: readonly string[]): Promise<number> {
  let folder: string;
  try {
    const { values } = parseArgs({
      args: [...args],
      options: {
        folder: { type: "string", default: "/tmp/viommu-guest" },
        help: { type: "boolean" },
      },
    });
    if (values.help === true) {
      console.log(HELP.trimEnd());
      return 0;
    }
    folder = values.folder;
    await Deno.mkdir(folder, { mode: 0o700 });
  } catch (error) {
    console.error(`guest: ${reasonOf(error, args)}`);
    return 1;
  }
  try {
    return await run(await prepareLab("x86_64"), folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** What is wrong with the command line, in one line. */
function reasonOf(error: unknown, args: readonly string[]): string {
  if (error instanceof Deno.errors.AlreadyExists) {
    return "Cannot make the folder: it is there. If no other guest uses it, remove it, or give another one by --folder";
  }
  return `Cannot run with "${args.join(" ")}": ${error instanceof Error ? error.message : error}`;
}

/** Boots with everything in a folder. */
async function run(lab: Lab, folder: string): Promise<number> {
  const serve = [
    ...["--socket-path", `${folder}/vhost.sock`, "--api-socket", `${folder}/api.sock`],
    // QEMU looks ring addresses up in RAM, I/O virtual though they are: they must lie in it.
    ...["--input-range", "0-0x1fffffff", "--api-access", "full"],
    ...["--endpoint-device", `rng:00:03.0,socket=${folder}/rng.sock`],
    ...["--endpoint-device", `blk:00:06.0,socket=${folder}/blk.sock,file=${folder}/disk.img`],
  ];
  const qemu = await qemuCommand(lab, folder);
  tell(folder, serve, qemu);
  await using device = await startServe(folder, serve);
  const guest = new Deno.Command(qemu[0], { args: [...qemu.slice(1)], env: { ...lab.qemu.env } })
    .spawn();
  // Ctrl-C goes to the guest where there is a terminal; elsewhere it ends QEMU, and then this.
  Deno.addSignalListener("SIGINT", () => {});
  const { code } = await guest.status;
  if (code === 0) return 0;
  console.error(`guest: QEMU ended with status ${code}; the log of serve:\n${await device.log()}`);
  return 1;
}

/** The command that boots the guest; makes its file system, disk and ACPI table. */
async function qemuCommand(lab: Lab, folder: string): Promise<readonly string[]> {
  const initramfs = `${folder}/initramfs.gz`;
  await lab.writeInitramfs(initramfs, DRIVERS);
  const content = await Deno.readFile(new URL("program/shell.sh", import.meta.url));
  const more = await gzip(cpioArchive([{ path: "bin/shell", mode: EXECUTABLE, content }]));
  await Deno.writeFile(initramfs, more, { append: true });
  await Deno.writeFile(`${folder}/disk.img`, new Uint8Array(0));
  await Deno.truncate(`${folder}/disk.img`, DISK);
  await viommu("viot", "--iommu", "00:02.0", "-o", `${folder}/viot.aml`);
  const args = machineArguments("x86_64", {
    kernel: lab.kernel,
    initramfs,
    machine: "kernel-irqchip=off",
    append: "intel_iommu=off iommu.strict=1 program=/bin/shell",
    devices: [
      // QEMU lets I/O virtual addresses through only when there is an IOMMU that it knows of. The guest leaves it alone.
      ...["-device", "intel-iommu"],
      ...deviceArguments({ socketPath: `${folder}/vhost.sock` }),
      ...["-acpitable", `file=${folder}/viot.aml`],
      ...endpointArguments(folder, 1),
    ],
  });
  // Ctrl-C goes to the guest, Ctrl-A X ends it.
  const onTerminal = args.map((arg) => arg === "stdio" ? "mon:stdio" : arg);
  return [...lab.qemu.command, ...onTerminal];
}

/** Prints the commands, and what can be asked meanwhile. */
function tell(folder: string, serve: readonly string[], qemu: readonly string[]): void {
  const inspect = `deno task viommu inspect --api-socket ${folder}/api.sock`;
  console.log(`
The guest is made by two commands:

  deno task serve ${shell(serve)}

  ${shell(qemu)}

While it runs, in another terminal:

  ${inspect} state
  ${inspect} mappings
  ${inspect} translate --endpoint 00:06.0 --ring 0
  ${inspect} events --follow
  ${inspect} watch
`);
}

/** Arguments as a shell takes them, options on lines of their own. */
function shell(args: readonly string[]): string {
  const quoted = args.map((arg) =>
    /^[\w\-.,:/=+%]+$/.test(arg) ? arg : `'${arg.replaceAll("'", "'\\''")}'`
  );
  return quoted.map((arg, i) => i > 0 && arg.startsWith("-") ? `\\\n    ${arg}` : arg).join(" ");
}

/** A running `serve`; ends with its block. */
interface RunningServe extends AsyncDisposable {
  /** What it has logged. */
  log(): Promise<string>;
}

/** Starts `serve`, and waits until its sockets are there. */
async function startServe(folder: string, options: readonly string[]): Promise<RunningServe> {
  const path = `${folder}/serve.log`;
  const file = await Deno.open(path, { create: true, write: true });
  const [program, ...args] = serveCommand(...options);
  const process = new Deno.Command(program, {
    args,
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  })
    .spawn();
  const copied = process.stderr.pipeTo(file.writable);
  let hasEnded = false;
  process.status.then(() => hasEnded = true);
  const isThere = async () => await Deno.lstat(`${folder}/api.sock`).then(() => true, () => false);
  await until(async () => hasEnded || await isThere(), "the API socket is there");
  return {
    async log(): Promise<string> {
      return await Deno.readTextFile(path);
    },
    async [Symbol.asyncDispose](): Promise<void> {
      if (!hasEnded) process.kill("SIGTERM");
      await process.status;
      await copied;
    },
  };
}

Deno.exit(await main(Deno.args));
