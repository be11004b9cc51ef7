/**
 * A statement of the specification in the conformance suite.
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
  /** How the device must be configured; its defaults when missing. */
  readonly configuration?: Configuration;
  /** Feature bits that the driver does not agree to. */
  readonly withoutNegotiating?: number;
  /** Fails if the device does not comply. */
  run(dut: DeviceUnderTest): Promise<void>;
}
