/** The command lines that attach a QEMU guest to a served device. */
import { PAGE_SIZE, parseSize, sizeText } from "../address.ts";

/** Architectures of guests. */
export const ARCHITECTURES = ["x86_64", "aarch64"] as const;
/** One of {@linkcode ARCHITECTURES}. */
export type Architecture = typeof ARCHITECTURES[number];

/** Guest memory, unless asked for otherwise. */
export const DEFAULT_GUEST_MEMORY = parseSize("512M")!;
/** Where the RAM of the arm64 machine begins. */
const ARM_RAM = 0x4000_0000;
/** The page to which devices of the arm64 machine write their interrupts. */
const ARM_MSI_REGION = "0x8090000-0x8090fff";
/** PCI address of the IOMMU, and its slot. */
const IOMMU = "00:02.0";
const IOMMU_SLOT = 2;

/** Arguments of devices behind the IOMMU. */
export interface QemuEndpoints {
  /** Of vhost-user devices. */
  readonly endpoints: readonly string[];
  /** Of devices of the host. */
  readonly hostDevices: readonly string[];
}

/** A device behind the IOMMU, as its option says it. */
export interface QemuEndpoint {
  /** Its arguments. */
  readonly qemuArguments: readonly string[];
  /** Whether it is a device of the host. */
  readonly isHostDevice?: boolean;
}

/** The arguments of devices by their kind; those that several have, such as one `/dev/iommu`, once. */
export function qemuEndpoints(all: readonly QemuEndpoint[]): QemuEndpoints {
  function argumentsOf(isHostDevice: boolean): readonly string[] {
    const those = all.filter((each) => (each.isHostDevice === true) === isHostDevice);
    return [...new Set(those.flatMap(({ qemuArguments }) => qemuArguments))];
  }
  return { endpoints: argumentsOf(false), hostDevices: argumentsOf(true) };
}

/** A guest and what it is attached to. */
export interface QemuGuest extends QemuEndpoints {
  /** The socket of the IOMMU. */
  readonly socketPath: string;
  /** Bytes of guest memory. */
  readonly memory: number;
}

/** Lines for a shell, the device in slot 2; what `serve` has to be told besides is a comment. */
export function qemuCommands(architecture: Architecture, guest: QemuGuest): readonly string[] {
  return architecture === "x86_64" ? x86Commands(guest) : armCommands(guest);
}

/** The ACPI table, then the guest. */
function x86Commands(guest: QemuGuest): readonly string[] {
  const hasEndpoints = guest.endpoints.length > 0;
  // QEMU passes I/O virtual addresses of rings on only if the machine has an IOMMU that it knows of.
  const machine = hasEndpoints
    ? "q35,memory-backend=mem,kernel-irqchip=off"
    : "q35,memory-backend=mem";
  const command = [
    `qemu-system-x86_64 -M ${machine} ${commonArguments(guest)}`,
    // Beside a device of the host, QEMU wants this one to tell of what the guest maps, although the guest never uses it.
    ...(hasEndpoints
      ? [`-device intel-iommu${guest.hostDevices.length > 0 ? ",caching-mode=on" : ""}`]
      : []),
    ...deviceArguments(guest),
    ...guest.hostDevices,
    "-acpitable file=viot.aml",
  ];
  return [
    ...(hasEndpoints
      ? [
        `# serve needs --input-range ${range(0, guest.memory)}, the guest's kernel intel_iommu=off`,
      ]
      : []),
    ...(guest.hostDevices.some((each) => each.includes("host=PCI"))
      ? ["# PCI is the address of the device on the host, as lspci -D shows it"]
      : []),
    `viommu viot --iommu ${IOMMU} -o viot.aml`,
    ...joined(command),
  ];
}

/** The machine's own device tree, what becomes of it, then the guest. */
function armCommands(guest: QemuGuest): readonly string[] {
  const hasEndpoints = guest.endpoints.length > 0;
  const plain = "virt,gic-version=3,memory-backend=mem";
  // An IOMMU that QEMU knows of, as on x86; the guest does not see it: the tree is that of a machine without one.
  const machine = hasEndpoints ? `${plain},iommu=smmuv3` : plain;
  const program = "qemu-system-aarch64 -M";
  const common = `-cpu max ${commonArguments(guest)}`;
  const region = hasEndpoints
    ? `--msi-region ${ARM_MSI_REGION} --input-range ${range(ARM_RAM, guest.memory)}`
    : "--msi-region none";
  // QEMU's own SMMU, which vhost-user devices need, does not take devices of the host.
  const isMixed = hasEndpoints && guest.hostDevices.length > 0;
  const hostDevices = isMixed ? [] : guest.hostDevices;
  return [
    ...(isMixed
      ? ["# QEMU's smmuv3 does not take vfio-pci: passed-through devices are left out here"]
      : []),
    `# serve needs --endpoint 0-0xffff,format=smmuv3-s1 ${region}`,
    ...joined([`${program} ${plain},dumpdtb=virt.dtb ${common}`, memoryArgument(guest)]),
    `viommu dtb --iommu ${IOMMU} -i virt.dtb -o viommu.dtb`,
    ...joined([
      `${program} ${machine} ${common}`,
      ...deviceArguments(guest),
      ...hostDevices,
      "-dtb viommu.dtb",
    ]),
  ];
}

/** The connection to a socket, as one word for a shell. QEMU takes a comma in a path where there are two. */
export function chardevArgument(id: string, path: string): string {
  const word = `socket,id=${id},path=${path.replaceAll(",", ",,")}`;
  const isPlain = /^[\w@%+=:,./-]+$/.test(word);
  return `-chardev ${isPlain ? word : `'${word.replaceAll("'", "'\\''")}'`}`;
}

/** `DEVICE.FUNCTION` on the root bus, as QEMU's `addr=` takes it. */
export function qemuSlot(endpoint: number): string {
  const slot = ((endpoint >>> 3) & 0x1f).toString(16);
  return (endpoint & 7) === 0 ? slot : `${slot}.${endpoint & 7}`;
}

/** What both machines have. */
function commonArguments({ memory }: QemuGuest): string {
  return `-m ${sizeText(memory)} -nodefaults -nographic -serial stdio`;
}

/** Memory that can be shared. */
function memoryArgument({ memory }: QemuGuest): string {
  return `-object memory-backend-memfd,id=mem,size=${sizeText(memory)},share=on`;
}

/** Memory, the IOMMU, and what is behind it. */
function deviceArguments(guest: QemuGuest): readonly string[] {
  return [
    memoryArgument(guest),
    chardevArgument("viommu", guest.socketPath),
    "-device vhost-user-test-device-pci,chardev=viommu,virtio-id=23,num_vqs=2,vq_size=128," +
    `config_size=40,addr=${IOMMU_SLOT}`,
    ...guest.endpoints,
  ];
}

/** Addresses of so many bytes, as an option takes them. */
function range(first: number, bytes: number): string {
  const last = first + Math.ceil(bytes / PAGE_SIZE) * PAGE_SIZE - 1;
  return `${first === 0 ? "0" : `0x${first.toString(16)}`}-0x${last.toString(16)}`;
}

/** Arguments as one command of several lines. */
function joined(parts: readonly string[]): readonly string[] {
  return parts.map((part, i) =>
    `${i === 0 ? "" : "  "}${part}${i === parts.length - 1 ? "" : " \\"}`
  );
}
