/**
 * Runs in L1: `serve` with devices of the host, a front end and a guest's driver of ours. What a device reaches after each
 * request is what its DMA moved.
 *
 * Virtio 1.4, 5.13.6: A6 (ATTACH to another domain detaches from the first), D4 (after DETACH no access through the domain),
 * U4 (an UNMAP that would split a mapping is RANGE and changes nothing), C3 (bypass after a reset); the numbers are those of
 * `docs/conformance.md`.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { check } from "./checks.ts";
import { GuestSession, type Place, ServeProcess, VmmDevices } from "./guest.ts";
import { bindToVfio, GROUPED, INTERRUPT_PAGE, SINGLE } from "./vfio.ts";

/** The endpoints: one alone in its host group, and two that share one. */
const ALONE = 0x20;
const ONE = 0x30;
const OTHER = 0x38;

/** Where requests map to: two guest pages that devices read and write. */
const A: Place = { page: 0x4_0000, frame: 0x90 };
const B: Place = { page: 0x4_0001, frame: 0x91 };
const BOTH = [A.page, B.page] as const;

const paths: string[] = [];
for (const address of [SINGLE, ...GROUPED]) {
  paths.push(await bindToVfio(address));
}
const vmm = new VmmDevices(paths);
const [alone, one, other] = vmm.edus;
const options = ["00:04.0", "00:06.0", "00:07.0"].flatMap((endpoint, i) => [
  "--vfio",
  `${endpoint},fd=${vmm.devices[i].file},iommufd=${vmm.iommufd.file}`,
]);
// The endpoints' own tables have the format of the host's IOMMU.
if (Deno.build.arch === "aarch64") options.push("--endpoint", "0-0xffff,format=smmuv3-s1");
const serve = new ServeProcess("/tmp/viommu.sock", options);
const guest = await GuestSession.begin(await serve.connect(), vmm);

await check(
  "Before the guest's first ATTACH a device reaches what its VMM has given it",
  async () => {
    assert(await guest.movesUntranslated(alone));
  },
);

await check("After ATTACH it reaches what the domain maps, and nothing else", async () => {
  assertEquals(await guest.attach(1, ALONE), "OK");
  assert(!await guest.movesUntranslated(alone));
  assertEquals(await guest.map(1, BOTH, A.frame), "OK");
  assert(await guest.moves(alone, A, B));
  assert(!await guest.movesUntranslated(alone));
});

await check("A page that may only be read is not written", async () => {
  const readOnly = { page: 0x5_0000, frame: 0x92 };
  assertEquals(await guest.map(1, [readOnly.page, readOnly.page], readOnly.frame, "r"), "OK");
  assert(await guest.moves(alone, readOnly, A));
  assert(!await guest.moves(alone, A, readOnly));
});

await check("A refused MAP or UNMAP changes nothing", async () => {
  assertEquals(await guest.map(1, [INTERRUPT_PAGE, INTERRUPT_PAGE], A.frame), "INVAL");
  assertEquals(await guest.map(1, [INTERRUPT_PAGE - 1, INTERRUPT_PAGE], A.frame), "INVAL");
  assert(!await guest.moves(alone, { page: INTERRUPT_PAGE - 1, frame: A.frame }, B));
  assertEquals(await guest.map(1, BOTH, A.frame + 4), "INVAL");
  assertEquals(await guest.unmap(1, [A.page, A.page]), "RANGE");
  assertEquals(await guest.unmap(1, [B.page, B.page + 8]), "RANGE");
  assert(await guest.moves(alone, A, B));
});

await check("ATTACH to another domain moves it at once", async () => {
  const [c, d] = [{ ...A, frame: 0x94 }, { ...B, frame: 0x95 }];
  // Another endpoint keeps both domains.
  assertEquals(await guest.attach(2, ALONE + 1), "OK");
  assertEquals(await guest.map(2, BOTH, c.frame), "OK");
  assertEquals(await guest.attach(2, ALONE), "OK");
  assert(await guest.moves(alone, c, d));
  assert(!await guest.moves(alone, A, B));
});

await check("After UNMAP it reaches nothing", async () => {
  assertEquals(await guest.unmap(2, BOTH), "OK");
  assert(!await guest.moves(alone, { ...A, frame: 0x94 }, { ...B, frame: 0x95 }));
  assert(!await guest.movesUntranslated(alone));
});

await check("After DETACH it bypasses, as long as the bypass byte says so", async () => {
  assertEquals(await guest.detach(2, ALONE), "OK");
  assert(await guest.movesUntranslated(alone));
  await guest.setBypass(false);
  assert(!await guest.movesUntranslated(alone));
  await guest.setBypass(true);
  assert(await guest.movesUntranslated(alone));
});

await check("In a bypass domain it reaches all RAM, whatever the bypass byte says", async () => {
  await guest.setBypass(false);
  assertEquals(await guest.attach(3, ALONE, true), "OK");
  assert(await guest.movesUntranslated(alone));
  await guest.setBypass(true);
});

await check("After a reset it bypasses", async () => {
  assertEquals(await guest.attach(1, ALONE), "OK");
  assert(!await guest.movesUntranslated(alone));
  await guest.restart();
  assert(await guest.movesUntranslated(alone));
  assertEquals(await guest.attach(1, ALONE), "OK");
  assertEquals(await guest.map(1, BOTH, A.frame), "OK");
  assert(await guest.moves(alone, A, B));
});

await check("Devices of one host group are in one domain, or the second is refused", async () => {
  assertEquals(await guest.attach(4, ONE), "OK");
  assertEquals(await guest.map(4, BOTH, 0x98), "OK");
  const [c, d] = [{ ...A, frame: 0x98 }, { ...B, frame: 0x99 }];
  assert(await guest.moves(one, c, d));
  assertEquals(await guest.attach(5, OTHER), "UNSUPP");
  assert(await guest.moves(one, c, d));
  assertEquals(await guest.attach(4, OTHER), "OK");
  assert(await guest.moves(other, c, d));
  assertEquals(await guest.attach(5, ONE), "UNSUPP");
  assert(await guest.moves(one, c, d) && await guest.moves(other, c, d));
});

await check(
  "DETACH of one of a host group blocks the group until the other is attached again",
  async () => {
    const [c, d] = [{ ...A, frame: 0x98 }, { ...B, frame: 0x99 }];
    assertEquals(await guest.detach(4, ONE), "OK");
    for (const edu of [one, other]) assert(!await guest.moves(edu, c, d));
    assertEquals(await guest.attach(4, OTHER), "OK");
    assert(await guest.moves(other, c, d));
  },
);

await check("DMA goes on when serve is killed, and a new process takes over", async () => {
  await serve[Symbol.asyncDispose]();
  assert(await guest.moves(alone, A, B));
  await using next = new ServeProcess("/tmp/next.sock", options);
  using again = await GuestSession.begin(await next.connect(), vmm, guest.ram);
  assertEquals(await again.attach(9, ALONE), "OK");
  assert(!await again.moves(alone, A, B));
  assertEquals(await again.map(9, BOTH, 0xa0), "OK");
  assert(await again.moves(alone, { ...A, frame: 0xa0 }, { ...B, frame: 0xa1 }));
});
