/**
 * A guest with a network card behind our IOMMU, whose back end is DPDK's unmodified `testpmd`.
 *
 * @module
 */
import { exists } from "./lab/cache.ts";
import { type Dpdk, type Guest, type Lab, LineProcess } from "./lab/mod.ts";
import { until } from "../until.ts";
import type { ServedDevice } from "./served_device.ts";
import { BELOW_END_OF_RAM, bootTranslated } from "./translated_machine.ts";

/** Endpoint id of the network card. */
export const NET = 0x18;
/** The same as PCI address in the guest. */
export const NET_ADDRESS = "0000:00:03.0";
/** The address of the guest's card. */
const GUEST_ADDRESS = "10.0.0.2/24";
/** The address that answers: `testpmd` does so for any. */
export const PEER_ADDRESS = "10.0.0.1";

/** The sockets of the two ends of the proxy. */
export interface ProxySockets {
  /** The socket that QEMU connects to. */
  readonly listen: string;
  /** The socket between the proxy and the back end. */
  readonly backEnd: string;
}

/** The sockets of a test. */
export function proxySockets(folder: string): ProxySockets {
  return { listen: `${folder}/net.sock`, backEnd: `${folder}/dpdk.sock` };
}

/** Arguments of `serve` for a proxied card. */
export function proxyArguments(folder: string, more = ""): readonly string[] {
  const { listen, backEnd } = proxySockets(folder);
  return [
    ...BELOW_END_OF_RAM,
    ...["--endpoint-proxy", `00:03.0,listen=${listen},backend=${backEnd}${more}`],
  ];
}

/** How `testpmd` is started. */
export interface TestpmdOptions {
  /** Whether it connects to the proxy, and not the proxy to it. */
  readonly connects?: boolean;
  /** Whether the port asks for translations. */
  readonly translates?: boolean;
}

/**
 * Starts `testpmd`, which answers pings, on the last processor and with a lower priority than the guest. If it is to
 * listen, it does when this returns.
 */
export async function startTestpmd(
  dpdk: Dpdk,
  folder: string,
  options: TestpmdOptions = {},
): Promise<LineProcess> {
  const last = navigator.hardwareConcurrency - 1;
  const { connects = false, translates = true } = options;
  const socket = proxySockets(folder).backEnd;
  const port = `net_vhost0,iface=${socket}` +
    `${translates ? ",iommu-support=1" : ""}${connects ? ",client=1" : ""}`;
  const process = new LineProcess({
    title: "testpmd",
    env: { RUNTIME_DIRECTORY: folder },
    command: [
      ...["nice", "-n", "5", ...dpdk.command],
      ...["--lcores", `0@${last},1@${last}`, "--no-huge", "-m", "128", "--no-pci"],
      ...["--no-telemetry", "--no-shconf", "--vdev", port, "--"],
      ...["--forward-mode=icmpecho", "--total-num-mbufs=4096", "--nb-cores=1"],
      ...["--port-topology=loop", "--auto-start", "--stats-period", "5", "--no-mlockall"],
    ],
  });
  if (connects) return process;
  try {
    await until(async () => process.ended || await exists(socket), "testpmd listens", 60_000);
    if (process.ended) throw process.failure("Ended instead of listening");
  } catch (error) {
    await process[Symbol.asyncDispose]();
    throw error;
  }
  return process;
}

/** How the machine differs from the usual one. */
export interface NetMachineOptions {
  /** Whether the guest invalidates with every unmapping; it does unless told otherwise. */
  readonly strict?: boolean;
  /** Whether the card is behind the IOMMU; it is unless told otherwise. */
  readonly translated?: boolean;
  /** Whether the guest may restart. */
  readonly restarts?: boolean;
  /** Whether QEMU connects again when the card's connection ends. */
  readonly reconnects?: boolean;
}

/** Boots a guest with the card in the slot of its endpoint. */
export async function bootNet(
  lab: Lab,
  folder: string,
  device: ServedDevice,
  options: NetMachineOptions = {},
): Promise<Guest> {
  const { strict = true, translated = true, restarts = false, reconnects = false } = options;
  // QEMU serves the control queue itself, with its own translation, so the card has none.
  const without = [
    ...["ctrl_vq", "ctrl_rx", "ctrl_vlan", "ctrl_rx_extra", "ctrl_mac_addr"],
    ...["ctrl_guest_offloads", "guest_announce", "mq"],
  ];
  const socket = `path=${proxySockets(folder).listen}${reconnects ? ",reconnect-ms=200" : ""}`;
  return await bootTranslated(lab, folder, device, {
    modules: { "virtio_net": "", "pktgen": "" },
    strict,
    restarts,
    devices: [
      ...["-chardev", `socket,id=net,${socket}`],
      ...["-netdev", "vhost-user,id=net,chardev=net,vhostforce=on"],
      "-device",
      `virtio-net-pci,netdev=net,addr=3,romfile=,iommu_platform=${translated ? "on" : "off"},` +
      `disable-legacy=on,${without.map((name) => `${name}=off`).join(",")}`,
    ],
  });
}

/** Gives the card its address. */
export async function configureNet(guest: Guest): Promise<void> {
  await guest.run(`ip link set eth0 up && ip addr add ${GUEST_ADDRESS} dev eth0`);
}

/** Pings in one command of the guest: so few that they take longer than its time limit only if something hangs. */
const PINGS_AT_ONCE = 20;

/**
 * How many of so many pings of 1400 bytes are answered.
 *
 * One is under way at a time. Otherwise, on a machine where the back end's forwarding thread seldom runs, a burst of
 * answers arrives at once, and the receive buffer of busybox's `ping` has room for 7.
 *
 * @param patience Seconds to wait for each answer; by default more than a busy machine takes.
 */
export async function ping(guest: Guest, count: number, patience = 60): Promise<number> {
  const one = `ping -c 1 -W ${patience} -s 1392 -q ${PEER_ADDRESS} > /dev/null`;
  let answered = 0;
  for (let left = count; left > 0; left -= PINGS_AT_ONCE) {
    const some = Math.min(left, PINGS_AT_ONCE);
    const lines = await guest.run(
      `n=0; for i in $(seq ${some}); do ${one} && n=$((n + 1)); done; echo $n`,
    );
    answered += Number(lines[0]);
  }
  return answered;
}

/** Packets of 60 bytes a second that the kernel sends through the card, of so many. */
export async function transmitRate(guest: Guest, packets: number): Promise<number> {
  const settings = [
    `count ${packets}`,
    "pkt_size 60",
    "delay 0",
    `dst ${PEER_ADDRESS}`,
    "dst_mac 02:00:00:00:00:01",
  ];
  await guest.run("echo add_device eth0 > /proc/net/pktgen/kpktgend_0");
  for (const each of settings) await guest.run(`echo '${each}' > /proc/net/pktgen/eth0`);
  await guest.run("echo start > /proc/net/pktgen/pgctrl");
  const lines = await guest.run("cat /proc/net/pktgen/eth0");
  const found = /(\d+)pps/.exec(lines.join("\n"));
  if (found === null) throw new Error(`Cannot find the rate: ${lines.join("; ")}`);
  return Number(found[1]);
}
