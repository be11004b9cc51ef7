/**
 * The descriptors that a fuzzed front end hands over.
 *
 * @module
 */
import {
  createMemoryFile,
  createPipe,
  type Descriptor,
  Event,
  mapMemoryFile,
  UnixStream,
} from "../../../device/host/mod.ts";
import { DescriptorKinds } from "./descriptor_kinds.ts";

/** Bytes of a mebibyte: the memory that is handed over. */
export const MIB = 1 << 20;

/** What belongs to messages, or any descriptor of {@linkcode DescriptorKinds}. */
export type Kind = "memory" | "event" | "socket" | "reader" | "writer" | number;

/** What the front end may hand over, made once. */
export class Belongings {
  readonly memory = createMemoryFile("fuzz-memory", MIB);
  readonly guest = mapMemoryFile(this.memory, 0, MIB);
  readonly event = Event.create();
  readonly sockets = UnixStream.pair();
  readonly pipe = createPipe();
  readonly kinds = new DescriptorKinds();

  of(kind: Kind): Descriptor {
    if (typeof kind === "number") return this.kinds.all[kind % this.kinds.all.length][1];
    switch (kind) {
      case "memory":
        return this.memory;
      case "event":
        return this.event.descriptor;
      case "socket":
        return this.sockets[0].descriptor;
      case "reader":
        return this.pipe[0];
      case "writer":
        return this.pipe[1];
    }
  }

  close(): void {
    for (const each of [this.memory, this.guest, this.event, ...this.sockets, ...this.pipe]) {
      each.close();
    }
    this.kinds.close();
  }
}
