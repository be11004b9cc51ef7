/**
 * What a VT-d unit can be told about its hardware.
 *
 * @module
 */
import type { VtdCapabilities } from "../walk/vtd_capabilities.ts";

/** Options of VT-d units; scalable mode knows them all. */
export interface VtdUnitOptions extends VtdCapabilities {
  /** Domain id of endpoints in bypass; default 0xffff. Not one that `attach` may be given. */
  readonly bypassDomainId?: number;
  /** Bits of PASIDs in scalable mode, 13 to 20; default 15, which makes the directory one page. */
  readonly pasidBits?: number;
  /** Largest address-width code for pass-through entries, 1 to 3; default 2 (48 bits). */
  readonly bypassAddressWidth?: number;
}
