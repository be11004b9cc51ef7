/**
 * The ACPI VIOT table, which tells an x86 guest which PCI endpoints sit behind which virtio-iommu.
 *
 * Source: ACPI 6.5, section 5.2.34 (Virtual I/O Translation table). A table is a 36-byte ACPI header, the
 * node count and the offset of the first node, and the nodes. We write two: the PCI IOMMU, and one range
 * of PCI endpoints whose ids are their addresses. Ranges of PCI addresses are inclusive.
 */

/** Bytes in front of the nodes: ACPI header, node count, node offset, eight reserved bytes. */
const HEADER_SIZE = 48;
/** Node type and size: a range of PCI endpoints. */
const PCI_RANGE = { type: 1, size: 24 } as const;
/** Node type and size: a virtio-iommu that is a PCI device. */
const VIRTIO_IOMMU_PCI = { type: 3, size: 16 } as const;

/** What the table describes. */
export interface Topology {
  /** Endpoint id (segment * 65536 + PCI address) of the virtio-iommu itself. */
  readonly iommu: number;
  /** First endpoint behind it. */
  readonly firstEndpoint: number;
  /** Last endpoint behind it, inclusive. A guest leaves the IOMMU itself out on its own. */
  readonly lastEndpoint: number;
}

/**
 * Builds the table, checksum included, as QEMU's `-acpitable file=` takes it.
 *
 * @throws {RangeError} If the endpoints do not lie in one run: the PCI addresses of a range that spans
 * segments are the same in every segment of it, so such a range must hold whole segments.
 */
export function buildViot(topology: Topology): Uint8Array<ArrayBuffer> {
  const { iommu, firstEndpoint, lastEndpoint } = topology;
  const firstSegment = Math.floor(firstEndpoint / 65536);
  const lastSegment = Math.floor(lastEndpoint / 65536);
  const firstAddress = firstEndpoint % 65536;
  const lastAddress = lastEndpoint % 65536;
  if (
    lastEndpoint < firstEndpoint ||
    (firstSegment !== lastSegment && (firstAddress !== 0 || lastAddress !== 0xffff))
  ) {
    throw new RangeError(
      `Cannot describe endpoints ${firstEndpoint} to ${lastEndpoint} as one PCI range: ` +
        `a range must lie in one segment or hold whole segments`,
    );
  }
  const bytes = new Uint8Array(HEADER_SIZE + VIRTIO_IOMMU_PCI.size + PCI_RANGE.size);
  const view = new DataView(bytes.buffer);
  writeHeader(bytes, view);
  view.setUint16(36, 2, true); // node count
  view.setUint16(38, HEADER_SIZE, true);

  const iommuNode = HEADER_SIZE;
  view.setUint8(iommuNode, VIRTIO_IOMMU_PCI.type);
  view.setUint16(iommuNode + 2, VIRTIO_IOMMU_PCI.size, true);
  view.setUint16(iommuNode + 4, Math.floor(iommu / 65536), true);
  view.setUint16(iommuNode + 6, iommu % 65536, true);

  const rangeNode = iommuNode + VIRTIO_IOMMU_PCI.size;
  view.setUint8(rangeNode, PCI_RANGE.type);
  view.setUint16(rangeNode + 2, PCI_RANGE.size, true);
  view.setUint32(rangeNode + 4, firstEndpoint, true);
  view.setUint16(rangeNode + 8, firstSegment, true);
  view.setUint16(rangeNode + 10, lastSegment, true);
  view.setUint16(rangeNode + 12, firstAddress, true);
  view.setUint16(rangeNode + 14, lastAddress, true);
  view.setUint16(rangeNode + 16, iommuNode, true);

  bytes[9] = (256 - bytes.reduce((sum, byte) => sum + byte, 0) % 256) % 256;
  return bytes;
}

/** Writes the common ACPI header with its checksum byte left 0. */
function writeHeader(bytes: Uint8Array, view: DataView): void {
  const text = new TextEncoder();
  bytes.set(text.encode("VIOT"), 0);
  view.setUint32(4, bytes.length, true);
  view.setUint8(8, 0); // revision
  bytes.set(text.encode("VIOMMU"), 10); // OEM id
  bytes.set(text.encode("VIOMMU  "), 16); // OEM table id
  view.setUint32(24, 1, true); // OEM revision
  bytes.set(text.encode("VIOM"), 28); // creator id
  view.setUint32(32, 1, true); // creator revision
}
