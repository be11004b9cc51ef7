import { assertEquals, assertThrows } from "@std/assert";
import { createMemoryFile, inheritedDevice } from "../../../device/host/mod.ts";
import { O_RDONLY } from "../../../device/host/constants.ts";
import { cString, libc } from "../../../device/host/libc.ts";

const F_GETFD = 1;

/** Opens `/dev/null` as a shell does for a program that it starts: not closed on exec. */
function openNull(): number {
  const number = libc().open(cString("/dev/null"), O_RDONLY, 0);
  assertEquals(libc().fcntl(number, F_GETFD, 0), 0);
  return number;
}

Deno.test("inheritedDevice() takes over a device by its place in sysfs and closes it on exec", () => {
  const number = openNull();
  const { descriptor, folder } = inheritedDevice(number, /\/mem\/null$/, "/dev/null");
  assertEquals(folder, "/sys/devices/virtual/mem/null");
  assertEquals(descriptor.number, number);
  assertEquals(libc().fcntl(number, F_GETFD, 0), 1);
  descriptor.close();
  assertEquals(descriptor.isOpen, false);
});

Deno.test("inheritedDevice() refuses another device and leaves it open", () => {
  const number = openNull();
  assertThrows(
    () => inheritedDevice(number, /\/misc\/iommu$/, "/dev/iommu"),
    RangeError,
    `Cannot use descriptor ${number} as /dev/iommu: it is /dev/null, device /sys/devices/virtual/mem/null`,
  );
  assertEquals(libc().fcntl(number, F_GETFD, 0), 0);
  libc().close(number);
});

Deno.test("inheritedDevice() refuses what is no device, and numbers that are not open", () => {
  using file = createMemoryFile("no-device", 4096);
  function take(number: number): void {
    inheritedDevice(number, /null/, "/dev/null");
  }
  assertThrows(() => take(file.number), RangeError, "it is /memfd:no-device (deleted), no device");
  assertThrows(() => take(9999), RangeError, "Cannot use descriptor 9999 as /dev/null: EBADF");
  assertThrows(() => take(-1), RangeError, "it is no descriptor number");
  assertThrows(() => take(1.5), RangeError, "it is no descriptor number");
});

Deno.test("inheritedDevice() says which link it could not read where there is no sysfs", () => {
  const number = openNull();
  assertThrows(
    () => inheritedDevice(number, /null/, "/dev/null", "/nonexistent"),
    RangeError,
    "/nonexistent/dev/char/1:3 cannot be read: ENOENT",
  );
  libc().close(number);
});
