import { assertEquals } from "@std/assert";
import { GIVEN_BACK_MAX, GuestLife } from "../../../device/iommu/guest_life.ts";

/** Which of some endpoints are blocked. */
function blocked(life: GuestLife): readonly number[] {
  return [1, 2, 3].filter((endpoint) => life.blocks(endpoint));
}

/** Ends the connection while some endpoints are attached, which leave one by one. */
function lose(life: GuestLife, attached: readonly number[]): void {
  const leaving = new Set(attached);
  const before = blocked(life);
  life.lose(attached.length, (endpoint) => leaving.has(endpoint));
  const after = [1, 2, 3].filter((each) => before.includes(each) || leaving.has(each));
  assertEquals(blocked(life), after, "they are blocked before they have left");
  for (const endpoint of attached) {
    leaving.delete(endpoint);
    life.hasLeft(endpoint);
    assertEquals(blocked(life), after);
  }
  if (attached.length > 0) life.allHaveLeft();
  assertEquals(blocked(life), after);
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
  lose(life, []);
  assertEquals(life.state, "none", "a session without a guest is none");
  life.renew();
  assertEquals([life.state, blocked(life)], ["known", []]);
});

Deno.test("GuestLife blocks what was attached when the connection ended, until it is renewed", () => {
  const life = new GuestLife();
  life.renew();
  lose(life, [3, 1]);
  assertEquals([life.state, idsOf(life), life.blocksAny, blocked(life)], ["lost", [1, 3], true, [
    1,
    3,
  ]]);
  lose(life, []);
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
  lose(life, [2]);
  assertEquals([life.state, blocked(life)], ["unknown", [1, 2, 3]]);
});

Deno.test("GuestLife keeps a bounded number of endpoints that a guest gives back; the rest stays blocked", () => {
  const life = new GuestLife();
  life.loseTrack();
  for (let endpoint = 0; endpoint <= GIVEN_BACK_MAX; endpoint++) life.gaveBack(endpoint);
  assertEquals([life.blocks(GIVEN_BACK_MAX - 1), life.blocks(GIVEN_BACK_MAX)], [false, true]);
});

Deno.test("GuestLife that is renewed forgets the endpoints that are still leaving", () => {
  const life = new GuestLife();
  life.renew();
  life.lose(2, (endpoint) => endpoint < 3);
  assertEquals([life.blockedCount, blocked(life)], [2, [1, 2]]);
  life.hasLeft(1);
  assertEquals([life.blockedCount, blocked(life)], [2, [1, 2]]);
  life.renew();
  assertEquals([life.blockedCount, blocked(life)], [0, []]);
  life.hasLeft(2);
  life.allHaveLeft();
  assertEquals([life.state, idsOf(life), blocked(life)], ["known", [], []]);
});
