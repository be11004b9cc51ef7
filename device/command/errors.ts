/** Errors that end a command with one line. */
import { oneLine } from "../log.ts";

/** An error whose message is one line: control characters, which an argument may contain, are shown as `\u{…}`. */
class OneLineError extends Error {
  constructor(message: string) {
    super(oneLine(message));
  }
}

/** Wrong arguments. The message is one line that says what is wrong and what would be right. */
export class UsageError extends OneLineError {
  /** Name of the class. */
  override readonly name = "UsageError";
}

/** A failure while running that is no bug: exit code 1. The message is one line. */
export class CommandError extends OneLineError {
  /** Name of the class. */
  override readonly name = "CommandError";
}
