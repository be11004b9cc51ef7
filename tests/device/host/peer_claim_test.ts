import { assertEquals } from "@std/assert";
import { PeerProcess, UnixStream } from "../../../device/host/mod.ts";
import { PeerClaim } from "../../../device/host/peer_claim.ts";

Deno.test("a peer that has said nothing for ten seconds loses its place, one that has said something does not", () => {
  let now = 5000;
  const [one, other] = UnixStream.pair();
  const claim = new PeerClaim(one, () => now);
  try {
    assertEquals(claim.lost(false), undefined);
    now += 9999;
    assertEquals(claim.lost(false), undefined);
    now += 1;
    assertEquals(claim.lost(false), "it has said nothing for 10 seconds");
    assertEquals(claim.lost(true), undefined);
  } finally {
    claim.close();
    one.close();
    other.close();
  }
});

Deno.test("PeerProcess tells when a process has ended, also before it is waited for", async () => {
  const child = new Deno.Command("cat", { stdin: "piped", stdout: "null" }).spawn();
  const living = PeerProcess.ofProcess(child.pid)!;
  assertEquals(living.isGone, false);
  await child.stdin.close();
  await child.status;
  assertEquals(living.isGone, true);
  assertEquals(PeerProcess.ofProcess(child.pid)?.isGone, true);
  living.close();
  const [one, other] = UnixStream.pair();
  const own = PeerProcess.of(one)!;
  assertEquals(own.isGone, false);
  for (const each of [own, one, other]) each.close();
});
