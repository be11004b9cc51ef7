/**
 * The status that answers an errno: the one place where errors of the engine and of the page tables become statuses.
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

/** The status (virtio 1.4, 5.13.6) that answers an errno. */
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

/** The same for ATTACH, where an address that is in use is in a reserved region of the endpoint. */
export function attachStatusOf(error: Errno): Status {
  // A7, 5.13.6.3.2: "If properties of the endpoint (obtained with a PROBE request) are compatible with properties of
  // other endpoints already attached to the requested domain, then the device SHOULD attach the endpoint. Otherwise the
  // device SHOULD reject the request and set status to VIRTIO_IOMMU_S_UNSUPP."
  return error === EADDRINUSE ? S_UNSUPP : statusOf(error);
}

/** The same for UNMAP, where what is not found is the end of a mapping. */
export function unmapStatusOf(error: Errno): Status {
  // U4, 5.13.6.6.2: "If a mapping affected by the range is not covered in its entirety by the range (the UNMAP request
  // would split the mapping), then the device SHOULD set the request status to VIRTIO_IOMMU_S_RANGE, and SHOULD NOT
  // remove any mapping."
  return error === ENOENT ? S_RANGE : statusOf(error);
}
