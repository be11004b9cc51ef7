/**
 * How an error of the engine or of the page tables is answered on the wire.
 *
 * @module
 */
import {
  EADDRINUSE,
  EEXIST,
  EFAULT,
  EINVAL,
  ENOENT,
  ENOMEM,
  EOPNOTSUPP,
  ERANGE,
  type Errno,
  OK,
} from "../../pagetable/mod.ts";
import {
  S_DEVERR,
  S_INVAL,
  S_NOENT,
  S_NOMEM,
  S_OK,
  S_RANGE,
  S_UNSUPP,
  type Status,
} from "./wire.ts";

/** The virtio-iommu status (virtio 1.4, 5.13.6) that stands for an error number. */
export function statusOf(error: Errno): Status {
  switch (error) {
    case OK:
      return S_OK;
    case EEXIST: // overlaps a mapping
    case EADDRINUSE:
    case EINVAL: // touches a reserved region
      return S_INVAL;
    case ERANGE: // outside the tables' input or output addresses
    case EFAULT: // not backed by the guest
      return S_RANGE;
    case ENOENT:
      return S_NOENT;
    case ENOMEM:
      return S_NOMEM;
    case EOPNOTSUPP:
      return S_UNSUPP;
    default:
      return S_DEVERR;
  }
}
