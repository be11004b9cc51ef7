/**
 * Every statement of the conformance suite.
 *
 * @module
 */
import { ATTACH } from "./attach.ts";
import { CONFIGURATION } from "./configuration.ts";
import { EVENT } from "./event.ts";
import { MAP } from "./map.ts";
import { OPERATION } from "./operation.ts";
import { PROBE } from "./probe.ts";
import type { Statement } from "./statement.ts";
import { UNMAP } from "./unmap.ts";

/** All of them, in the order of the specification. */
export const STATEMENTS: readonly Statement[] = [
  ...CONFIGURATION,
  ...OPERATION,
  ...ATTACH,
  ...MAP,
  ...UNMAP,
  ...PROBE,
  ...EVENT,
];
