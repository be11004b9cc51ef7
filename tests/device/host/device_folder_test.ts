import { assertEquals } from "@std/assert";
import { createMemoryFile, Descriptor, deviceFolder } from "../../../device/host/mod.ts";
import { O_CLOEXEC, O_RDONLY } from "../../../device/host/constants.ts";
import { cString, libc } from "../../../device/host/libc.ts";

function openNull(): Descriptor {
  return new Descriptor(libc().open(cString("/dev/null"), O_RDONLY | O_CLOEXEC, 0));
}

Deno.test("deviceFolder() finds a device by its number, whatever the file is called", () => {
  using file = openNull();
  assertEquals(deviceFolder(file.number, /\/mem\/null$/), {
    folder: "/sys/devices/virtual/mem/null",
  });
});

Deno.test("deviceFolder() says what another device is, what is no device, and which numbers are not open", () => {
  using file = openNull();
  using memory = createMemoryFile("no-device", 4096);
  assertEquals(
    deviceFolder(file.number, /\/misc\/iommu$/),
    "it is /dev/null, device /sys/devices/virtual/mem/null",
  );
  assertEquals(deviceFolder(memory.number, /null/), "it is /memfd:no-device (deleted), no device");
  assertEquals(deviceFolder(9999, /null/), "EBADF; it was not inherited");
});

Deno.test("deviceFolder() says which link it could not read where there is no sysfs", () => {
  using file = openNull();
  assertEquals(
    deviceFolder(file.number, /null/, "/nonexistent"),
    "/nonexistent/dev/char/1:3 cannot be read: ENOENT",
  );
});
