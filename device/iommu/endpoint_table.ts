/**
 * The endpoints behind the IOMMU: which exist, and the state of those that the guest attached.
 *
 * Which endpoints exist is given as ranges of ids, so a whole PCI segment costs nothing until the guest uses an endpoint
 * of it. Where ranges overlap, the last one decides.
 */
import type { TranslationUnit } from "../../pagetable/mod.ts";
import type { TranslatedEndpoint } from "./hardware.ts";

/** A range of endpoints with the same kind of tables. */
export interface EndpointRange {
  /** First endpoint id, 32 bits: for PCI, segment * 65536 + bus * 256 + device * 8 + function. */
  readonly first: number;
  /** Last endpoint id, inclusive. */
  readonly last: number;
  /** Format of the page tables that translate for these endpoints, one of `formatNames()`, such as `vtd-ss`. */
  readonly format: string;
}

/** What an endpoint must know of the domain that it is attached to. */
export interface Attachable {
  /** Whether it has ended: nothing is attached to it any more. */
  readonly hasEnded: boolean;
}

/** A device behind the IOMMU that was attached, to a domain of class `D`, or has faulted. */
export class Endpoint<D extends Attachable> implements TranslatedEndpoint {
  /** Its 32-bit id. */
  readonly id: number;
  /** Format of the page tables that translate for it. */
  readonly format: string;
  /** The IOMMU unit that translates for it, once it has been looked up. */
  unit: TranslationUnit | undefined;
  /** Accesses of it that were refused. */
  faults = 0;
  /** Whether it is blocked in the device tables though it is attached, because the host has blocked its device. */
  isBlocked = false;
  #domain: D | undefined;

  /** An endpoint that is attached to nothing. */
  constructor(id: number, format: string) {
    this.id = id;
    this.format = format;
  }

  /** The domain it is attached to, unless that has ended. */
  get domain(): D | undefined {
    const domain = this.#domain;
    return domain === undefined || domain.hasEnded ? undefined : domain;
  }

  set domain(domain: D | undefined) {
    this.#domain = domain;
    this.isBlocked = false;
  }

  /** Whether its domain has ended, and its entry in the device tables is yet to be cleared. */
  get isLeaving(): boolean {
    return this.#domain?.hasEnded === true;
  }
}

/** All endpoints of one device. */
export class EndpointTable<D extends Attachable> {
  readonly #ranges: readonly EndpointRange[];
  readonly #seen = new Map<number, Endpoint<D>>();
  /** Those that have faulted. */
  readonly #faulted = new Set<Endpoint<D>>();

  /**
   * A table in which no endpoint is used yet.
   *
   * @throws {RangeError} If there is no range, or one that ends before it begins.
   */
  constructor(ranges: readonly EndpointRange[]) {
    if (ranges.length === 0) throw new RangeError("Cannot serve an IOMMU without endpoints");
    for (const { first, last } of ranges) {
      if (last < first) throw new RangeError(`Cannot take endpoints ${first} to ${last}`);
    }
    this.#ranges = ranges;
  }

  /** The formats that endpoints use, each once. */
  get formats(): readonly string[] {
    return [...new Set(this.#ranges.map((range) => range.format))];
  }

  /** How many endpoints there are, those that two ranges name counted twice. */
  get size(): number {
    return this.#ranges.reduce((sum, { first, last }) => sum + last - first + 1, 0);
  }

  /** The ranges as they were given. */
  get ranges(): readonly EndpointRange[] {
    return this.#ranges;
  }

  /** The format of an endpoint's tables, or undefined if there is no such endpoint. */
  formatOf(id: number): string | undefined {
    return this.#ranges.findLast((range) => id >= range.first && id <= range.last)?.format;
  }

  /** The state of an endpoint that was attached or has faulted, if it was. */
  seen(id: number): Endpoint<D> | undefined {
    return this.#seen.get(id);
  }

  /** The state of an endpoint, made if there is none; undefined if there is no such endpoint. */
  open(id: number): Endpoint<D> | undefined {
    let endpoint = this.#seen.get(id);
    if (endpoint === undefined) {
      const format = this.formatOf(id);
      if (format === undefined) return undefined;
      endpoint = new Endpoint<D>(id, format);
      this.#seen.set(id, endpoint);
    }
    return endpoint;
  }

  /** Forgets an endpoint that is attached to nothing, has left its domain and has not faulted. */
  release(endpoint: Endpoint<D>): void {
    if (endpoint.domain !== undefined || endpoint.isLeaving || endpoint.faults > 0) return;
    this.#seen.delete(endpoint.id);
  }

  /** Counts an access of an endpoint that was refused. */
  fault(endpoint: Endpoint<D>): void {
    endpoint.faults++;
    this.#faulted.add(endpoint);
  }

  /** Sets the fault counters of all endpoints to 0. */
  forgetFaults(): void {
    for (const endpoint of this.#faulted) {
      endpoint.faults = 0;
      this.release(endpoint);
    }
    this.#faulted.clear();
  }

  /** The ids of the endpoints that were attached or have faulted, in the order in which they were. */
  get seenIds(): Iterable<number> {
    return this.#seen.keys();
  }

  /** How many endpoints were attached or have faulted. */
  get seenCount(): number {
    return this.#seen.size;
  }

  /** The endpoints that were attached or have faulted, by ascending id. */
  list(): readonly Endpoint<D>[] {
    return [...this.#seen.values()].sort((a, b) => a.id - b.id);
  }
}
