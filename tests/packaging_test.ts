/**
 * What `packaging/` ships: the units are accepted by systemd, the discovery file says what the back end says, and what is
 * installed as its README says runs in an empty home, with the service's command line and the socket that systemd would
 * pass.
 */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { attachRequest } from "../device/iommu/driver_requests.ts";
import { UnixListener } from "../device/host/mod.ts";
import { VERSION } from "../device/command/version.ts";
import { connect, send } from "./device/served_process.ts";

const PACKAGING = new URL("../packaging/", import.meta.url);
const MAIN = new URL("../main.ts", import.meta.url);

/** A folder that goes with the block. */
function temporaryFolder(): Disposable & { readonly path: string } {
  const path = Deno.makeTempDirSync();
  return { path, [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }) };
}

/** The text of a file of `packaging/`. */
function shipped(name: string): string {
  return Deno.readTextFileSync(new URL(name, PACKAGING));
}

/** Runs a program; what it printed and how it ended. */
function run(program: string, args: readonly string[], env: Record<string, string> = {}) {
  const { code, stdout, stderr } = new Deno.Command(program, { args: [...args], env }).outputSync();
  const text = new TextDecoder();
  return { code, out: text.decode(stdout), err: text.decode(stderr) };
}

/** Makes the bundle, as `deno task bundle` does. */
function bundle(output: string): void {
  const args = ["bundle", "--quiet", "--frozen", "--output", output, MAIN.pathname];
  const { code, err } = run(Deno.execPath(), args);
  assertEquals(code, 0, err);
}

/** Installs the program below a prefix, as `packaging/README.md` says. */
function install(prefix: string): void {
  for (const folder of ["bin", "libexec", "lib/viommu"]) {
    Deno.mkdirSync(`${prefix}/${folder}`, { recursive: true });
  }
  bundle(`${prefix}/lib/viommu/viommu.js`);
  Deno.copyFileSync(new URL("viommu", PACKAGING), `${prefix}/bin/viommu`);
  Deno.copyFileSync(new URL("viommu-backend", PACKAGING), `${prefix}/libexec/viommu-backend`);
}

/** The environment of an installed program: this Deno, and a home with nothing in it. */
function environment(prefix: string): Record<string, string> {
  const deno = Deno.execPath().replace(/\/[^/]*$/, "");
  return { PATH: `${deno}:/usr/bin:/bin`, HOME: `${prefix}/home`, NO_COLOR: "1" };
}

/** Whether there is a program. */
function has(program: string): boolean {
  try {
    return run(program, ["--version"]).code === 0;
  } catch {
    return false;
  }
}

Deno.test({
  name: "systemd accepts the units, for one VMM and as templates, and rates the service as safe",
  ignore: !has("systemd-analyze"),
  fn() {
    for (const [file, instance] of [["viommu", "viommu"], ["viommu@", "viommu@vm1"]]) {
      using folder = temporaryFolder();
      for (const kind of ["socket", "service"]) {
        const text = shipped(`viommu.${kind}`).replaceAll("/usr/bin/viommu", Deno.execPath());
        Deno.writeTextFileSync(`${folder.path}/${file}.${kind}`, text);
      }
      const units = ["socket", "service"].map((kind) => `${folder.path}/${instance}.${kind}`);
      const verified = run("systemd-analyze", ["verify", "--man=no", ...units]);
      assertEquals([verified.code, verified.out, verified.err], [0, "", ""]);
    }
    const service = new URL("viommu.service", PACKAGING).pathname;
    const { code, out } = run("systemd-analyze", [
      ...["security", "--offline=true", "--no-pager", "--threshold=15", service],
    ]);
    assertEquals(code, 0, out);
  },
});

/** The arguments of the service's program, with its runtime directory at `directory`. */
function serviceArguments(directory: string): readonly string[] {
  const command = /^ExecStart=(.*)$/m.exec(shipped("viommu.service"))?.[1] ?? "";
  const [program, ...args] = command.replaceAll("%t/%N", directory).split(" ");
  assertEquals([program, args[0]], ["/usr/bin/viommu", "serve"]);
  return args;
}

Deno.test("what is installed runs in an empty home as its discovery file and its service say", async () => {
  using folder = temporaryFolder();
  const prefix = folder.path;
  install(prefix);
  const discovery = JSON.parse(shipped("50-viommu.json"));
  assertEquals(Object.keys(discovery).sort(), ["binary", "description", "type"]);
  const backEnd = discovery.binary.replace(/^\/usr/, prefix);
  const printed = run(backEnd, ["--print-capabilities"], environment(prefix));
  assertEquals([printed.code, printed.err], [0, ""]);
  assertEquals(JSON.parse(printed.out).type, discovery.type);

  const socket = `${prefix}/activated.sock`;
  using listener = UnixListener.listen(socket);
  const script = 'export LISTEN_FDS=1 LISTEN_PID=$$; exec "$0" "$@"';
  const program = `${prefix}/bin/viommu`;
  const process = spawn("sh", ["-c", script, program, ...serviceArguments(prefix)], {
    env: environment(prefix),
    stdio: ["ignore", "ignore", "ignore", listener.descriptor.number],
  });
  const ended = once(process, "exit");
  try {
    using session = await connect(socket);
    assertEquals(await send(session, attachRequest(3, 24)), "OK");
    const inspect = ["inspect", "--api-socket", `${prefix}/api.sock`, "state"];
    const state = await new Deno.Command(program, { args: inspect, env: environment(prefix) })
      .output();
    assertStringIncludes(new TextDecoder().decode(state.stdout), "a VMM is connected");
    session.frontEnd.close();
    // `process.kill` would report the signal in place of the exit code.
    Deno.kill(process.pid!, "SIGTERM");
    assertEquals(await ended, [0, null]);
  } finally {
    process.kill("SIGKILL");
    await ended;
  }
});

Deno.test("deno install takes the bundle, and what it installs runs in an empty home with nothing to fetch", () => {
  using folder = temporaryFolder();
  const { path } = folder;
  bundle(`${path}/viommu.js`);
  const permissions = ["ffi", "net", "read", "write", "run"].map((each) => `--allow-${each}`);
  const env = { ...environment(path), NO_PROXY: "*", HTTPS_PROXY: "http://127.0.0.1:9" };
  const installed = run(Deno.execPath(), [
    ...["install", "--quiet", "--global", "--root", path, "--name", "viommu", ...permissions],
    `${path}/viommu.js`,
  ], env);
  assertEquals(installed.code, 0, installed.err);
  const viommu = (...args: readonly string[]) => run(`${path}/bin/viommu`, args, env);
  assertEquals(viommu("--version").out, `${VERSION}\n`);
  assertStringIncludes(viommu("help", "serve").out, "--socket-path");
  const demo = viommu("demo");
  assertEquals(demo.code, 0, demo.err);
  assertStringIncludes(demo.out, "Everything is given back");
});
