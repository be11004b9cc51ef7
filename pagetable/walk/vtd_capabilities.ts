/** Capabilities of the hardware that a VT-d walker stands for. */
export interface VtdCapabilities {
  /** Bits of host addresses, HAW; default 52. */
  readonly addressBits?: number;
  /** Most bits of input addresses, MGAW + 1; default 57. */
  readonly inputBits?: number;
  /** Most levels of tables, 3 to 5 (CAP.SAGAW, CAP.FS5LP); default 5. */
  readonly mostLevels?: number;
  /** Whether leaves may have the SNP bit in legacy mode (ECAP.SC); default no. */
  readonly snoopControl?: boolean;
  /** Whether context entries may enable a device TLB and page requests (ECAP.DT, PRS); default no. */
  readonly deviceTlb?: boolean;
  /** Whether the context entry's RID_PASID counts (ECAP.RPS); default yes. Scalable mode. */
  readonly ridPasid?: boolean;
}

/** First and last page of the interrupt address range (VT-d §3.14). */
const INTERRUPT_FIRST = 0xfee00;
const INTERRUPT_LAST = 0xfeeff;

/** Whether some of `pages` pages from `first` on are in the interrupt address range. */
export function touchesInterrupts(first: number, pages: number): boolean {
  return first <= INTERRUPT_LAST && first + pages > INTERRUPT_FIRST;
}

/** The bits of an entry's high half that are reserved because addresses end at bit `addressBits` - 1. */
export function reservedAddress(addressBits: number): number {
  return ~(2 ** Math.max(addressBits - 32, 0) - 1);
}
