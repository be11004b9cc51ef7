/** An answer that is not the recorded one, in one line. */
import { addressText, endpointText, readAddress } from "../address.ts";
import { REQUEST_NAMES, STATUS_NAMES, T_ATTACH, T_DETACH, T_MAP, T_UNMAP } from "../iommu/wire.ts";

/** A request with both of its answers. */
export interface ComparedRequest {
  /** Its readable part. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Bytes of it. */
  readonly length: number;
  /** Its type. */
  readonly type: number;
  /** The recorded status. */
  readonly status: number;
  /** The recorded used length; 0 if nothing was written. */
  readonly used: number;
  /** Today's status. */
  readonly nowStatus: number;
  /** Today's used length. */
  readonly nowUsed: number;
  /** Microseconds from the beginning of the recording. */
  readonly time: number;
}

/** The line. `number` counts requests from 1 on. */
export function differenceText(number: number, request: ComparedRequest): string {
  const { time, status, used, nowStatus, nowUsed } = request;
  return `request ${number} at ${secondsText(time)}, ${requestText(request)}: ` +
    `recorded ${answerText(status, used)}, now ${answerText(nowStatus, nowUsed)}`;
}

/** Microseconds as seconds. */
export function secondsText(microseconds: number): string {
  return `${(microseconds / 1e6).toFixed(6)} s`;
}

/** A request in words, as far as it can be read. */
function requestText({ bytes, length, type }: ComparedRequest): string {
  const name = REQUEST_NAMES[type];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (length < 12) return name;
  const domain = view.getUint32(4, true);
  if (type === T_ATTACH || type === T_DETACH) {
    return `${name} of ${endpointText(view.getUint32(8, true))}, domain ${domain}`;
  }
  if ((type !== T_MAP && type !== T_UNMAP) || length < 24) return name;
  const [first, last] = [8, 16].map((at) => {
    const { page, offset } = readAddress(view, at);
    return addressText(page, offset);
  });
  return `${name} of ${first}-${last}, domain ${domain}`;
}

function answerText(status: number, used: number): string {
  return used === 0
    ? `no answer (${STATUS_NAMES[status]})`
    : `${STATUS_NAMES[status]} in ${used} bytes`;
}
