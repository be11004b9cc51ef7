/**
 * Fields of an AMD device table entry (AMD 48882 §2.2.2.1, reserved values: §2.5.3) in front of tables of 3 levels.
 *
 * @module
 */
import { field, oneElse, type Place, type Scenario, zeroElse } from "./field_world.ts";

/** Where the board of the oracle has RAM, tables and scratch page. */
export const AMD_PLACE: Place = {
  endpoint: 0x318,
  page: 0x1_0400,
  frame: 0x1_1000,
  scratch: 0x7000,
};

const RESERVED = "device-reserved 0x1";
const ILLEGAL = "device-invalid 0x1";

/** What fewer levels find; more only skip levels, whose address bits are 0. */
function mode(value: number): string {
  const outcomes = ["ok", "input-too-wide 0x2 stage 1", "not-present 0x2 stage 1"];
  return value === 7 ? ILLEGAL : outcomes[value] ?? "ok";
}

/** A device table entry, all four words of it. */
export const AMD_SCENARIO: Scenario = {
  format: "amdv1",
  table: { levels: 3 },
  unit: {},
  entries: {
    DTE: {
      step: 0,
      fields: [
        // Without V everything passes; without TV what needs a translation ends.
        field("V", 0, 0, "ok"),
        field("TV", 1, 1, oneElse("blocked 0x2"), (value) => value === 0),
        field("reserved", 6, 2, zeroElse(RESERVED)),
        field("HAD", 8, 7, (value) => value === 2 ? ILLEGAL : "ok", (value) => value === 2),
        // QEMU takes no level that skips others.
        field("Mode", 11, 9, mode, (value) => value > 3),
        field("PPR, GPRP, GIOV, GV, GLX", 57, 52, "ok"),
        field("GCR3 14:12", 60, 58, "ok"),
        // QEMU refuses the read without an event.
        field("IR", 61, 61, oneElse("no-read 0x2 stage 1"), (value) => value === 0),
        field("IW", 62, 62, "ok"),
        field("reserved", 63, 63, zeroElse(RESERVED)),
        field("DomainID, GCR3 30:15", 95, 64, "ok"),
        field("I to SATS, GCR3 51:31", 127, 96, "ok"),
        field("IV, IntTabLen, IG, IntTabRoot", 159, 128, "ok"),
        field("IntTabRoot", 179, 160, "ok"),
        field("reserved", 181, 180, zeroElse(RESERVED)),
        field("GuestPagingMode to Lint1Pass", 191, 182, "ok"),
        field("reserved", 206, 192, zeroElse(RESERVED)),
        field("VImuEn, GDeviceID", 223, 207, "ok"),
        field("GuestID", 239, 224, "ok"),
        field("reserved", 245, 240, zeroElse(RESERVED)),
        field("AttrV, Mode0FC, SnoopAttr", 255, 246, "ok"),
      ],
    },
  },
};
