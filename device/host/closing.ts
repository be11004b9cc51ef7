/**
 * Closes descriptors that a peer has sent, where that may block.
 *
 * `close(2)` waits for the daemon of a FUSE file system, without a time limit and without a way to interrupt it, and
 * for a TCP socket with SO_LINGER up to an hour. Closing a unix socket closes the descriptors that are queued in it,
 * with the same effect. So descriptors whose closing may block are closed on threads of the runtime's pool, a few at a
 * time: the pool is small, and waiting for rings needs a thread of it, too. (A process that exits while a close waits
 * for a FUSE daemon still waits for it; the kernel offers no way around that.)
 */
import { F_GET_SEALS, F_GETPIPE_SZ, FIONREAD } from "./constants.ts";
import { descriptorName } from "./file_status.ts";
import { libc } from "./libc.ts";

/** Threads that close at once. */
const MOST_AT_ONCE = 4;

/** How `/proc` calls an event descriptor. */
export const EVENT_NAME = "anon_inode:[eventfd]";

const waiting: number[] = [];
let underWay = 0;
let whenIdle: (() => void)[] = [];

/**
 * Whether closing a peer's descriptor cannot block: it is memory, an event or a pipe. Calls no file system, which could
 * block itself.
 */
export function closesAtOnce(number: number): boolean {
  return libc().fcntl(number, F_GET_SEALS, 0) >= 0 || libc().fcntl(number, F_GETPIPE_SZ, 0) >= 0 ||
    descriptorName(number) === EVENT_NAME;
}

/** Whether a socket holds unread bytes, and perhaps descriptors with them, or does not say. */
export function hasUnread(number: number): boolean {
  const bytes = new Int32Array(1);
  return libc().ioctl(number, FIONREAD, bytes) < 0 || bytes[0] !== 0;
}

/** Closes a descriptor on another thread, some time later. */
export function closeElsewhere(number: number): void {
  waiting.push(number);
  closeNext();
}

/** Descriptors that are not closed yet. */
export function descriptorsClosing(): number {
  return waiting.length + underWay;
}

/** Resolves when every descriptor is closed. */
export function descriptorsClosed(): Promise<void> {
  return new Promise((resolve) => {
    if (descriptorsClosing() === 0) resolve();
    else whenIdle.push(resolve);
  });
}

function closeNext(): void {
  while (underWay < MOST_AT_ONCE) {
    const number = waiting.shift();
    if (number === undefined) return;
    underWay++;
    libc().closeOnThread(number).then(closed, closed);
  }
}

function closed(): void {
  underWay--;
  closeNext();
  if (descriptorsClosing() > 0) return;
  const idle = whenIdle;
  whenIdle = [];
  for (const resolve of idle) resolve();
}
