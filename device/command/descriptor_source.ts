/**
 * Where the numbers of descriptors in an option lead: to those that `serve` inherited, or, in a request to the API
 * socket, to those that came along.
 *
 * A file that is named twice, such as the `/dev/iommu` of two devices, is one descriptor and a duplicate of it.
 */
import { Descriptor, descriptorStatus, errnoName } from "../host/mod.ts";

/** Descriptors by their numbers. */
export interface DescriptorSource {
  /**
   * The descriptor's own number, to look at what it is.
   *
   * @throws {RangeError} If there is no such descriptor; its one line says so.
   */
  numberOf(number: number): number;

  /**
   * Takes over the descriptor of a number, or a duplicate of one that was taken before and is still open. To be called
   * after a look at what it is: a number that was not inherited may be a descriptor of the runtime.
   */
  take(number: number): Descriptor;
}

/** Descriptors that the process inherited. */
export class InheritedDescriptors implements DescriptorSource {
  readonly #taken = new Map<number, Descriptor>();

  numberOf(number: number): number {
    const status = descriptorStatus(number);
    if (typeof status !== "number") return number;
    throw new RangeError(
      `Cannot use descriptor ${number}: ${errnoName(status)}; ` +
        "it was not inherited (deno task and npx do not pass descriptors on)",
    );
  }

  take(number: number): Descriptor {
    const before = this.#taken.get(number);
    if (before?.isOpen === true) return before.duplicate();
    const descriptor = Descriptor.inherited(number);
    this.#taken.set(number, descriptor);
    return descriptor;
  }
}

/** Descriptors that came with a request, counted from 0 on. */
export class SentDescriptors implements DescriptorSource {
  readonly #list: Descriptor[];
  readonly #all: readonly Descriptor[];

  /** @param list Those that came along; each that is taken is removed from it. */
  constructor(list: Descriptor[]) {
    this.#list = list;
    this.#all = [...list];
  }

  numberOf(number: number): number {
    return this.#at(number).number;
  }

  take(number: number): Descriptor {
    const descriptor = this.#at(number);
    const index = this.#list.indexOf(descriptor);
    if (index < 0) return descriptor.duplicate();
    this.#list.splice(index, 1);
    return descriptor;
  }

  #at(number: number): Descriptor {
    const descriptor = this.#all[number];
    if (descriptor !== undefined) return descriptor;
    const count = this.#all.length;
    throw new RangeError(
      `Cannot use descriptor ${number} of the request: ` +
        (count === 0 ? "none came with it" : `only 0 to ${count - 1} came with it`),
    );
  }
}
