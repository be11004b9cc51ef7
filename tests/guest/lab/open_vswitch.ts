/**
 * Prepares Open vSwitch with DPDK: a switch whose ports are vhost-user back ends.
 *
 * @module
 */
import { debianArch, hostArch } from "./arch.ts";
import { busyboxFor } from "./busybox.ts";
import { cachedItem, say } from "./cache.ts";
import { driverFile } from "./dpdk.ts";
import { LAB_RELEASE, machineRelease, megabytes, openPackages, type Package } from "./packages.ts";
import { works } from "./process.ts";
import { unpackedProgram } from "./unpacked_program.ts";

/** An Open vSwitch that can be started; each program is a command and the arguments that have to come first. */
export interface OpenVswitch {
  /** The database's server. */
  readonly server: readonly string[];
  /** Creates a database. */
  readonly tool: readonly string[];
  /** The schema of a switch's database. */
  readonly schema: string;
  /** The switch itself. */
  readonly daemon: readonly string[];
  /** Configures the switch. */
  readonly control: readonly string[];
  /** DPDK's options that load the driver for the memory of packets. */
  readonly drivers: string;
  /** A busybox of the host, for a network namespace and addresses in it. */
  readonly busybox: string;
}

const PACKAGES = ["openvswitch-switch-dpdk", "openvswitch-switch", "openvswitch-common"];

/** Open vSwitch in the cache folder, prepared there when it is not there yet. */
export async function findOpenVswitch(): Promise<OpenVswitch> {
  const host = debianArch(hostArch());
  const folder = await cachedItem(`open-vswitch-${LAB_RELEASE}-${host}-1`, async (folder) => {
    await machineRelease();
    const packages = await openPackages(LAB_RELEASE, host, false);
    const all = await packages.closure([...PACKAGES, "librte-mempool-ring25"]);
    const needed = all.filter(isForRunning);
    say(`fetching Open vSwitch and its libraries: ${needed.length}, ${megabytes(needed)} MB`);
    await packages.unpack(needed, folder);
  });
  const root = `${folder}/root`;
  const busybox = await busyboxFor(hostArch());
  if (!await works([busybox, "unshare", "-rn", busybox, "true"])) {
    throw new Error("Cannot start Open vSwitch: no network namespace can be made here");
  }
  return {
    server: await unpackedProgram(root, "usr/sbin/ovsdb-server"),
    tool: await unpackedProgram(root, "usr/bin/ovsdb-tool"),
    schema: `${root}/usr/share/openvswitch/vswitch.ovsschema`,
    daemon: await unpackedProgram(root, "usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk"),
    control: await unpackedProgram(root, "usr/bin/ovs-vsctl"),
    drivers: `-d ${await driverFile(root, "mempool_ring")}`,
    busybox,
  };
}

/** The programs and libraries; no interpreters. */
function isForRunning({ name }: Package): boolean {
  return PACKAGES.includes(name) || (name.startsWith("lib") && !name.startsWith("libpython"));
}
