import { assertEquals } from "@std/assert";
import { GIVEN_BACK_MAX, GuestLife } from "../../device/guest_life.ts";

/** Which of some endpoints are blocked. */
function blocked(life: GuestLife): readonly number[] {
  return [1, 2, 3].filter((endpoint) => life.blocks(endpoint));
}

/** The ids of those that it names, or "all". */
function idsOf(life: GuestLife): readonly number[] | "all" {
  if (life.blockedCount === undefined) return "all";
  const ids = [...life.blockedIds].sort((a, b) => a - b);
  assertEquals(ids.length, life.blockedCount);
  return ids;
}

Deno.test("GuestLife blocks nothing at power-on and while all is known", () => {
  const life = new GuestLife();
  assertEquals([life.state, idsOf(life), life.blocksAny, blocked(life)], ["none", [], false, []]);
  life.lose([]);
  assertEquals(life.state, "none", "a session without a guest is none");
  life.renew();
  assertEquals([life.state, blocked(life)], ["known", []]);
});

Deno.test("GuestLife blocks what was attached when the connection ended, until it is renewed", () => {
  const life = new GuestLife();
  life.renew();
  life.lose([3, 1]);
  assertEquals([life.state, idsOf(life), life.blocksAny, blocked(life)], ["lost", [1, 3], true, [
    1,
    3,
  ]]);
  life.lose([]);
  assertEquals(idsOf(life), [1, 3], "a further session that brings nothing changes nothing");
  const copy = life.copy();
  life.renew();
  assertEquals(blocked(life), []);
  life.assign(copy);
  assertEquals([life.state, idsOf(life)], ["lost", [1, 3]]);
});

Deno.test("GuestLife blocks all that an unknown guest has not given back", () => {
  const life = new GuestLife();
  life.loseTrack();
  life.gaveBack(2);
  assertEquals([life.state, idsOf(life), blocked(life)], ["unknown", "all", [1, 3]]);
  life.lose([2]);
  assertEquals([life.state, blocked(life)], ["unknown", [1, 2, 3]]);
});

Deno.test("GuestLife keeps a bounded number of endpoints that a guest gives back; the rest stays blocked", () => {
  const life = new GuestLife();
  life.loseTrack();
  for (let endpoint = 0; endpoint <= GIVEN_BACK_MAX; endpoint++) life.gaveBack(endpoint);
  assertEquals([life.blocks(GIVEN_BACK_MAX - 1), life.blocks(GIVEN_BACK_MAX)], [false, true]);
});
