/**
 * Fields of SMMUv3 stream table entries and context descriptors (SMMU IHI 0070 §5.1 to §5.5) for an SMMU that is
 * little-endian, terminates with aborts, and has no stalls, ATS, hypervisor streams, LPA2 or hardware updates.
 *
 * QEMU has no SubstreamIDs, which these entries need, so it judges those without.
 *
 * @module
 */
import {
  always,
  type Entry,
  type Field,
  field,
  type Place,
  type Scenario,
  unlessZero,
} from "./field_world.ts";
import { oneElse, zeroElse } from "./field_world.ts";

/** Where the board of the oracle has RAM, tables and scratch page. */
export const SMMU_PLACE: Place = {
  endpoint: 0x318,
  page: 0x5_0400,
  frame: 0x5_1000,
  scratch: 0x4_0800,
};

const BAD_STE = "device-invalid 0x4";
const BAD_CD = "pasid-invalid 0xa";
const DISABLED = "blocked 0x6";
const NOT_MAPPED = "not-present 0x10 stage 1";

/** Fields of an STE that say nothing about where an access goes: attributes, hints, ids, IGNORED and RES0 bits. */
const STE_OTHERS: readonly Field[] = [
  field("RES0", 58, 56, "ok"),
  field("S1CIR, S1COR, S1CSH", 71, 66, "ok"),
  field("S2HWU, DRE, CONT, DCP, PPAR, MEV, SW", 87, 72, "ok"),
  field("S1PIE, S2FWB, S1MPAM", 90, 88, "ok"),
  field("EATS, without IDR0.ATS", 93, 92, "ok"),
  field("STRW, without IDR0.Hyp", 95, 94, "ok"),
  field("MemAttr to NSCFG", 111, 96, "ok"),
  field("PRIVCFG, INSTCFG", 115, 112, "ok"),
  field("IMPLEMENTATION DEFINED", 127, 116, "ok"),
  field("S2VMID", 143, 128, "ok"),
  field("IMPLEMENTATION DEFINED", 159, 144, "ok"),
  ...[256, 288, 320, 352, 384, 416, 448, 480].map((low) =>
    field("word 4 to 7", low + 31, low, "ok")
  ),
];

/** Fields of stage 1, where it is disabled: IGNORED. QEMU looks at two of them all the same. */
const STE_S1_IGNORED: readonly Field[] = [
  field("S1Fmt", 5, 4, "ok"),
  field("S1ContextPtr", 37, 6, "ok"),
  field("S1ContextPtr", 55, 38, "ok"),
  field("S1CDMax", 63, 59, "ok", unlessZero),
  field("S1DSS", 65, 64, "ok"),
  field("S1STALLD", 91, 91, "ok", unlessZero),
];

/** Fields of stage 2, where it is disabled: IGNORED. */
const STE_S2_IGNORED: readonly Field[] = [
  field("S2T0SZ to S2AFFD", 191, 160, "ok"),
  field("S2NSW to S2TTB", 223, 192, "ok"),
  field("S2TTB to S2SKL", 255, 224, "ok"),
];

/** Where stage 1 is enabled and there are no SubstreamIDs. */
const STE_S1: readonly Field[] = [
  field("S1Fmt, with S1CDMax 0", 5, 4, "ok"),
  // 3.4.3: beyond the OAS of 44 bits; QEMU reads from there, and fails.
  field("S1ContextPtr 51:44", 51, 44, zeroElse(BAD_STE), unlessZero),
  field("S1ContextPtr 55:52, RES0 in SMMUv3.1 to 3.3", 55, 52, "ok", unlessZero),
  // Without SubstreamIDs (IDR1.SSIDSIZE 0) IGNORED; QEMU takes it for illegal.
  field("S1CDMax", 63, 59, "ok", unlessZero),
  field("S1DSS, with S1CDMax 0", 65, 64, "ok"),
  field("S1STALLD, without stalls (5.5)", 91, 91, zeroElse(BAD_STE)),
];

/** Size of the input and granule: 39 bits in tables of 4 KiB, whose first level is 1. */
function inputSize(value: number): string {
  if (value < 16 || value > 39) return BAD_CD;
  // From 40 bits on the walk begins at level 0, where the page's entry is the first one and empty.
  if (value < 25) return NOT_MAPPED;
  return value <= 33 ? "ok" : "input-too-wide 0x10 stage 1";
}

const CD: readonly Field[] = [
  field("T0SZ", 5, 0, inputSize),
  // Other granules have other levels and find nothing at the page's place in the table.
  field("TG0", 7, 6, (value) => ["ok", NOT_MAPPED, NOT_MAPPED, BAD_CD][value]),
  field("IR0, OR0, SH0", 13, 8, "ok"),
  field("EPD0", 14, 14, zeroElse(NOT_MAPPED)),
  field("ENDI", 15, 15, zeroElse(BAD_CD)),
  field("T1SZ to SH1, with EPD1", 29, 16, "ok"),
  // Then T1SZ is 0.
  field("EPD1", 30, 30, oneElse(BAD_CD)),
  field("V", 31, 31, oneElse("pasid-not-present 0xa")),
  // 7 is reserved and behaves as 6; QEMU stops at it.
  field("IPS", 34, 32, "ok", (value) => value > 5),
  field("AFFD, WXN, UWXN", 37, 35, "ok"),
  field("TBI0, TBI1, PAN", 40, 38, "ok"),
  field("AA64, without VMSAv8-32 (IDR0.TTF)", 41, 41, oneElse(BAD_CD)),
  field("HD, HA, without IDR0.HTTU", 43, 42, zeroElse(BAD_CD)),
  field("S, without stalls (5.5)", 44, 44, zeroElse(BAD_CD)),
  field("R (5.5)", 45, 45, "ok"),
  field("A, with TERM_MODEL 1 (5.5)", 46, 46, oneElse(BAD_CD)),
  field("ASET, ASID", 63, 47, "ok"),
  field("NSCFG0, HAD0, E0PD0, HAFT", 67, 64, "ok"),
  // Bits below the table's size are treated as 0.
  field("TTB0 11:4", 75, 68, "ok"),
  field("TTB0 51:44, above IPS", 115, 108, zeroElse(BAD_CD)),
  field("TTB0 55:52 and above: RES0", 127, 116, "ok"),
  field("NSCFG1 to TTB1, with EPD1", 159, 128, "ok"),
  field("TTB1 and above, with EPD1", 191, 160, "ok"),
  field("MAIR0", 223, 192, "ok"),
  field("MAIR1", 255, 224, "ok"),
  ...[256, 288, 320, 352, 384, 416, 448, 480].map((low) =>
    field("word 4 to 7", low + 31, low, "ok")
  ),
];

/** 4 KiB granule and first level 1: 31 to 43 bits, with up to 16 tables side by side. */
function secondInputSize(value: number): string {
  return value >= 21 && value <= 33 ? "ok" : BAD_STE;
}

/** Where stage 2 is enabled; `fault` is its fault where nothing is mapped. */
function steS2(fault: string): readonly Field[] {
  return [
    // QEMU does not look whether the first level has an index at all.
    field("S2T0SZ", 165, 160, secondInputSize, (value) => value >= 34 && value <= 39),
    // 39 bits fit first level 1 only, and 3 is for small tables (IDR3.STT).
    field("S2SL0", 167, 166, (value) => value === 1 ? "ok" : BAD_STE, (value) => value === 2),
    field("S2IR0, S2OR0, S2SH0", 173, 168, "ok"),
    field("S2TG", 175, 174, (value) => ["ok", fault, fault, BAD_STE][value]),
    // QEMU holds the input to this size; it is the OAS that limits it (3.4).
    field("S2PS", 178, 176, "ok", (value) => value < 2 || value > 5),
    // QEMU ends at it.
    field("S2AA64, without VMSAv8-32 (IDR0.TTF)", 179, 179, oneElse(BAD_STE), always),
    field("S2ENDI", 180, 180, zeroElse(BAD_STE)),
    field("S2AFFD", 181, 181, "ok"),
    field("S2PTW, with tables in ordinary memory", 182, 182, "ok"),
    field("S2HD, S2HA, without IDR0.HTTU", 184, 183, zeroElse(BAD_STE), unlessZero),
    field("S2S, without stalls (5.5)", 185, 185, zeroElse(BAD_STE)),
    field("S2R (5.5)", 186, 186, "ok"),
    field("S2HAFT, S2PIE, S2POE, DPT_VMATCH", 191, 187, "ok"),
    field("S2NSW, S2NSA, S2SL0_2, S2DS, without IDR5.DS", 195, 192, "ok"),
    field("S2TTB 11:4", 203, 196, "ok"),
    field("S2TTB 51:44, above S2PS", 243, 236, zeroElse(BAD_STE)),
    field("S2TTB 55:52 and above: RES0", 255, 244, "ok"),
  ];
}

const CAPABILITIES = { addressBits: 44, substreamBits: 0, updates: false };
const STAGE_1 = { inputBits: 39, outputBits: 44, granule: 4096 };
const LINEAR = { streamTable: "linear", capabilities: CAPABILITIES } as const;

const VALID = field("V", 0, 0, oneElse("device-not-present 0x4"));

/** Config by value: aborts, then what the STE is `prepared` for. QEMU ends at a stage 2 without S2AA64. */
function config(prepared: Readonly<Record<number, string>>): Field {
  return field(
    "Config",
    3,
    1,
    (value) => value < 4 ? "blocked 0x0" : prepared[value],
    (value) => prepared[value] === BAD_STE,
  );
}

/** Stage 1; the stages that are not prepared lack S2AA64. */
const STAGE_ONE: Scenario = {
  format: "smmuv3-s1",
  table: STAGE_1,
  unit: LINEAR,
  entries: {
    STE: {
      step: 0,
      fields: [
        VALID,
        config({ 4: "ok", 5: "ok", 6: BAD_STE, 7: BAD_STE }),
        ...STE_S1,
        ...STE_S2_IGNORED,
        ...STE_OTHERS,
      ],
    },
    CD: { step: 1, fields: CD },
  },
};

const STAGE_TWO: Scenario = {
  format: "smmuv3-s2",
  table: { inputBits: 39, outputBits: 44, granule: 4096 },
  unit: LINEAR,
  entries: {
    STE: {
      step: 0,
      fields: [
        VALID,
        // Its S1ContextPtr is 0, where no CD can be read; QEMU has no stage 1 on this board.
        field(
          "Config",
          3,
          1,
          (value) =>
            value < 4
              ? "blocked 0x0"
              : ["ok", "pasid-unreadable 0x9", "ok", "not-present 0x10 stage 2"][value - 4],
          (value) => value === 5 || value === 7,
        ),
        ...STE_S1_IGNORED,
        ...steS2("not-present 0x10 stage 2"),
        ...STE_OTHERS,
      ],
    },
  },
};

const BOTH_STAGES: Scenario = {
  format: "smmuv3-s1",
  table: STAGE_1,
  second: { format: "smmuv3-s2", table: { inputBits: 39, outputBits: 44, granule: 4096 } },
  unit: LINEAR,
  entries: {
    STE: {
      step: 0,
      fields: [
        VALID,
        // Stage 2 alone maps the page to itself, stage 1 alone has its tables where they are.
        config({ 4: "ok", 5: "ok", 6: "ok", 7: "ok" }),
        field("S1Fmt, with S1CDMax 0", 5, 4, "ok"),
        field("S1STALLD, without stalls (5.5)", 91, 91, zeroElse(BAD_STE)),
        ...steS2("not-present 0x10 stage 2"),
        ...STE_OTHERS,
      ],
    },
    CD: { step: 1, fields: CD },
  },
};

/** The scenarios that QEMU can judge, by the stages of its board. */
export const SMMU_SCENARIOS: Readonly<Record<"1" | "2" | "nested", Scenario>> = {
  "1": STAGE_ONE,
  "2": STAGE_TWO,
  "nested": BOTH_STAGES,
};

/** S1CDMax up to 5 SubstreamID bits (IDR1.SSIDSIZE). */
function withBits(none: string): (value: number) => string {
  return (value) => value > 5 ? BAD_STE : value === 0 ? none : "ok";
}

function steWith(fields: readonly Field[], step = 0): Entry {
  return { step, fields };
}

/** A linear table of 16 CDs, for requests without SubstreamID (CD 0) and with SubstreamID 1. */
const SUBSTREAMS: Scenario = {
  format: "smmuv3-s1",
  table: STAGE_1,
  unit: { ...LINEAR, substreamBits: 4, capabilities: { ...CAPABILITIES, substreamBits: 5 } },
  pasid: 1,
  entries: {},
};

/** A CD as an L1CD: the ASID makes an address beyond the OAS. */
const NO_LEAF = "pasid-directory-reserved 0x8";
const TWO_LEVELS = { streamTable: "linear", substreamBits: 10 } as const;
/** An L1CD is no valid CD. */
const NO_CD = "pasid-not-present 0xa";

/** The scenarios with SubstreamIDs, which QEMU does not have, and two-level stream tables, which it takes otherwise. */
export const SUBSTREAM_SCENARIOS: Readonly<Record<string, Scenario>> = {
  "without SubstreamID": {
    ...SUBSTREAMS,
    entries: {
      STE: steWith([
        field("S1CDMax", 63, 59, withBits("ok")),
        // 3 is reserved and behaves as 0.
        field("S1DSS", 65, 64, (value) => [DISABLED, "ok", "ok", DISABLED][value]),
        field("S1Fmt", 5, 4, (value) => ["ok", NO_LEAF, NO_LEAF, "ok"][value]),
      ]),
    },
  },
  "with SubstreamID 1": {
    ...SUBSTREAMS,
    asks: 1,
    entries: {
      STE: steWith([
        field("S1CDMax", 63, 59, withBits("pasid-disabled 0x8")),
        field("S1DSS", 65, 64, "ok"),
        config({ 4: "pasid-disabled 0x8", 5: "ok", 6: BAD_STE, 7: BAD_STE }),
      ]),
      CD: { step: 1, fields: CD },
    },
  },
  "with SubstreamID 0": {
    ...SUBSTREAMS,
    asks: 0,
    begins: DISABLED,
    entries: {
      STE: steWith([
        field("S1DSS", 65, 64, (value) => value === 2 ? DISABLED : "ok"),
      ]),
    },
  },
  "two levels of CDs": {
    ...SUBSTREAMS,
    unit: { ...TWO_LEVELS, capabilities: { ...CAPABILITIES, substreamBits: 20 } },
    asks: 1,
    entries: {
      STE: steWith([
        field("S1Fmt", 5, 4, (value) => [NO_CD, "ok", "ok", NO_CD][value]),
      ]),
      L1CD: {
        step: 1,
        fields: [
          field("V", 0, 0, oneElse("pasid-directory-not-present 0x8")),
          field("RES0", 11, 1, "ok"),
          field(
            "L2Ptr 51:44, beyond the OAS (3.4.3)",
            51,
            44,
            zeroElse("pasid-directory-reserved 0x8"),
          ),
          field("L2Ptr 55:52 and above: RES0", 63, 52, "ok"),
        ],
      },
    },
  },
  "two levels of STEs": {
    ...STAGE_ONE,
    unit: { streamTable: "2-level", capabilities: CAPABILITIES },
    entries: {
      L1STD: {
        step: 0,
        fields: [
          // The stream is number 24 of its table: 2^(Span - 1) must be more, and at most 2^8; from 12 on reserved.
          field(
            "Span",
            4,
            0,
            (value) =>
              value === 0
                ? "root-not-present 0x2"
                : value < 6 || value > 9
                ? "bad-endpoint 0x2"
                : "ok",
          ),
          field("RES0", 5, 5, "ok"),
          field("L2Ptr 55:52 and above: RES0", 63, 52, "ok"),
        ],
      },
    },
  },
};
