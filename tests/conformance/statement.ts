/**
 * What a statement of the specification is in the conformance suite.
 *
 * @module
 */
import type { Configuration, DeviceUnderTest } from "./subject.ts";

/** One checkable statement, numbered as in `docs/conformance.md`. */
export interface Statement {
  /** Its number, with a letter where one number has several cases. */
  readonly id: string;
  /** What is checked, as a sentence. */
  readonly text: string;
  /** How the device must be configured; as it comes by default. */
  readonly configuration?: Configuration;
  /** Feature bits that the driver does not agree to. */
  readonly withoutNegotiating?: number;
  /** Fails if the device does not keep to it. */
  run(dut: DeviceUnderTest): Promise<void>;
}
