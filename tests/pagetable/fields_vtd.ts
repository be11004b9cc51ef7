/**
 * Fields of VT-d's root, context, PASID directory and PASID table entries (VT-d §9.1 to §9.6, faults: §7.1.3), for
 * hardware of 48 bits and up to 4 levels, without device TLBs.
 *
 * @module
 */
import {
  always,
  type Entry,
  type Field,
  field,
  oneElse,
  type Place,
  type Scenario,
  unlessZero,
  zeroElse,
} from "./field_world.ts";

/** Where the board of the oracle has RAM, tables and scratch page. */
export const VTD_PLACE: Place = {
  endpoint: 0x398,
  page: 0x1_0400,
  frame: 0x1_1000,
  scratch: 0x7000,
};

const CAPABILITIES = { addressBits: 48, inputBits: 48, mostLevels: 4, ridPasid: false } as const;

/** P, reserved bits below the address, and address bits from the host address width of 48 on. */
function pointer(missing: string, reserved: string, firstReserved: number): readonly Field[] {
  return [
    field("P", 0, 0, oneElse(missing)),
    field("reserved", 11, firstReserved, zeroElse(reserved)),
    field("address 63:48", 63, 48, zeroElse(reserved)),
  ];
}

/** AW by value, of tables of 4 levels: 3 levels find nothing at the page's place, 5 are not there. */
function addressWidth(other: string, invalid: string): (value: number) => string {
  return (value) => value === 2 ? "ok" : value === 1 ? other : invalid;
}

/** Legacy mode. */
export const VTD_LEGACY: Scenario = {
  format: "vtd-ss",
  table: { levels: 4 },
  unit: { mode: "legacy", ...CAPABILITIES },
  entries: {
    root: {
      step: 0,
      fields: [
        ...pointer("root-not-present 0x1", "root-reserved 0xa", 1),
        field("reserved", 95, 64, zeroElse("root-reserved 0xa")),
        field("reserved", 127, 96, zeroElse("root-reserved 0xa")),
      ],
    },
    context: {
      step: 1,
      fields: [
        ...pointer("device-not-present 0x2", "device-reserved 0xb", 4),
        field("FPD", 1, 1, "ok"),
        // 1 needs a device TLB (ECAP.DT), 3 is reserved.
        field("TT", 3, 2, (value) => value % 2 === 0 ? "ok" : "device-invalid 0x3"),
        field("AW", 66, 64, addressWidth("not-present 0x6 stage 1", "device-invalid 0x3")),
        field("for software", 70, 67, "ok"),
        field("reserved", 71, 71, zeroElse("device-reserved 0xb")),
        field("DID", 87, 72, "ok"),
        field("reserved", 95, 88, zeroElse("device-reserved 0xb")),
        field("reserved", 127, 96, zeroElse("device-reserved 0xb")),
      ],
    },
  },
};

const CONTEXT = "device-reserved 0x42";
const PASID = "pasid-reserved 0x5a";
const INVALID = "pasid-invalid 0x5b";

/** Root, context and PASID directory entries; QEMU does not look for a device TLB behind DTE and PRE. */
const SCALABLE: Readonly<Record<string, Entry>> = {
  root: { step: 0, fields: pointer("root-not-present 0x39", "root-reserved 0x3a", 1) },
  context: {
    step: 1,
    fields: [
      ...pointer("device-not-present 0x41", CONTEXT, 12).filter(({ low }) => low !== 12),
      field("FPD", 1, 1, "ok"),
      field("DTE, without ECAP.DT", 2, 2, zeroElse(CONTEXT), unlessZero),
      field("PASIDE", 3, 3, "ok"),
      field("PRE, without ECAP.PRS", 4, 4, zeroElse(CONTEXT), unlessZero),
      field("reserved", 8, 5, zeroElse(CONTEXT)),
      field("PDTS", 11, 9, "ok"),
      field("RID_PASID, without ECAP.RPS", 83, 64, "ok"),
      field("RID_PRIV", 84, 84, "ok"),
      field("reserved", 95, 85, zeroElse(CONTEXT)),
      ...[96, 128, 160, 192, 224].map((low) => field("reserved", low + 31, low, zeroElse(CONTEXT))),
    ],
  },
  directory: {
    step: 2,
    fields: [
      // QEMU looks at none of these reserved bits.
      ...pointer("pasid-directory-not-present 0x51", "pasid-directory-reserved 0x52", 2)
        .map((one) => one.low === 0 ? one : { ...one, unlikeQemu: unlessZero }),
      field("FPD", 1, 1, "ok"),
    ],
  },
};

/** What PASID table entries of every type have in common; QEMU looks at none of their reserved bits. */
const PASID_COMMON: readonly Field[] = [
  field("P", 0, 0, oneElse("pasid-not-present 0x59")),
  field("FPD", 1, 1, "ok"),
  field("SSEE", 5, 5, "ok"),
  field("reserved", 11, 10, zeroElse(PASID), unlessZero),
  field("SSPTPTR 63:48", 63, 48, zeroElse(PASID), unlessZero),
  field("DID", 79, 64, "ok"),
  field("reserved", 86, 80, zeroElse(PASID), unlessZero),
  field("PWSNP to PAT", 95, 87, "ok"),
  field("PAT", 127, 96, "ok"),
  field("SRE, ERE", 129, 128, "ok"),
  field("WPE, NXE, SMEP, EAFE", 135, 132, "ok"),
  field("reserved", 139, 136, zeroElse(PASID), unlessZero),
  ...[192, 224, 256, 288, 320, 352, 384, 416, 448, 480].map((low) =>
    field("reserved", low + 31, low, zeroElse(PASID), unlessZero)
  ),
];

/** PGTT by value: first stage, second, both, pass-through; others are reserved. */
function type(outcomes: readonly string[]): (value: number) => string {
  return (value) => outcomes[value - 1] ?? INVALID;
}

/** Scalable mode by stage; QEMU has either stage alone. */
export const VTD_SCALABLE: Readonly<Record<"first" | "second", Scenario>> = {
  second: {
    format: "vtd-ss",
    table: { levels: 4 },
    unit: { mode: "scalable", ...CAPABILITIES },
    entries: {
      ...SCALABLE,
      PASID: {
        step: 3,
        fields: [
          ...PASID_COMMON,
          field("AW", 4, 2, addressWidth("not-present 0x79 stage 1", INVALID)),
          // A first stage has its table at 0, where none can be read; below a second one nothing is mapped there.
          field(
            "PGTT",
            8,
            6,
            type(["table-unreadable 0x73 stage 1", "ok", "not-present 0x75 stage 2", "ok"]),
            (value) => value === 1 || value === 3,
          ),
          field("SSADE", 9, 9, "ok"),
          field("FSPM, of no first stage", 131, 130, "ok"),
        ],
      },
    },
  },
  first: {
    format: "vtd-fs",
    table: { levels: 4 },
    unit: { mode: "scalable", ...CAPABILITIES },
    entries: {
      ...SCALABLE,
      PASID: {
        step: 3,
        fields: [
          ...PASID_COMMON,
          // For the second stage alone; QEMU judges canonical addresses by it.
          field("AW", 4, 2, "ok", always),
          field(
            "PGTT",
            8,
            6,
            type(["ok", "table-unreadable 0x7b stage 1", "table-unreadable 0x7b stage 2", "ok"]),
            (value) => value === 2 || value === 3,
          ),
          field("SSADE", 9, 9, "ok"),
          // 1 is 5 levels, which the hardware does not have; 2 and 3 are reserved.
          field("FSPM", 131, 130, zeroElse(INVALID)),
          field("FSPTPTR 63:48", 191, 176, zeroElse(PASID), unlessZero),
        ],
      },
    },
  },
};
