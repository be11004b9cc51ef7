import { SOL_SOCKET } from "./constants.ts";
import { libc } from "./libc.ts";

/** An integer option of a socket, such as `SO_TYPE`; of a structure, its first integer. -1 if it has none. */
export function socketOption(number: number, name: number): number {
  const value = new Int32Array(3);
  const length = new Uint32Array([value.byteLength]);
  if (libc().getsockopt(number, SOL_SOCKET, name, value, length) < 0) return -1;
  return value[0];
}
