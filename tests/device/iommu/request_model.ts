/**
 * What requests should come to, said as plainly as the specification says it: byte addresses, lists, no tables.
 *
 * Virtio 1.4, 5.13.6. Where several sentences refuse a request, each of their statuses is right.
 *
 * @module
 */

/** What the device was made with. */
export interface ModelLimits {
  /** Last endpoint that exists, inclusive, from 0 on. */
  readonly lastEndpoint: number;
  /** Last byte that can be mapped, inclusive, from 0 on. */
  readonly inputLast: bigint;
  /** Last byte that a leaf can lead to, inclusive. */
  readonly outputLast: bigint;
  readonly granule: bigint;
  readonly maxDomains: number;
  readonly maxMappings: number;
  readonly probeSize: number;
  /** Reserved ranges, inclusive, with the endpoint that has them; all have them without one. */
  readonly reserved: readonly {
    readonly first: bigint;
    readonly last: bigint;
    readonly endpoint?: number;
  }[];
}

/** A mapping; bytes, inclusive. */
export interface ModelMapping {
  readonly first: bigint;
  readonly last: bigint;
  readonly phys: bigint;
  /** An OR of READ 1, WRITE 2, MMIO 4. */
  readonly flags: number;
}

/** A domain. */
export interface ModelDomain {
  readonly bypass: boolean;
  readonly endpoints: Set<number>;
  mappings: ModelMapping[];
}

const SIZES = [0, 20, 20, 36, 28, 72];
const ATTACH = 1;
const DETACH = 2;
const MAP = 3;
const UNMAP = 4;
const F_MMIO = 1 << 5;
const F_BYPASS_CONFIG = 1 << 6;

/** The device as the driver knows it. */
export class RequestModel {
  readonly #limits: ModelLimits;
  readonly domains = new Map<number, ModelDomain>();
  /** Device features that are agreed. */
  features = 0;

  constructor(limits: ModelLimits) {
    this.#limits = limits;
  }

  /** The domain that an endpoint is in. */
  domainOf(endpoint: number): ModelDomain | undefined {
    return [...this.domains.values()].find((domain) => domain.endpoints.has(endpoint));
  }

  /** The type of a request; 0 for one that there is not. */
  static typeOf(bytes: Uint8Array): number {
    const type = bytes[0] ?? 0;
    return type < SIZES.length ? type : 0;
  }

  /** Every status that refuses a request, of which there is one at least if it is refused. */
  refusals(bytes: Uint8Array, room: number): ReadonlySet<string> {
    const why = new Set<string>();
    const type = RequestModel.typeOf(bytes);
    if (bytes.length < SIZES[type]) return why.add("INVAL");
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    if (type === ATTACH) this.#refuseAttach(view, why);
    else if (type === DETACH) this.#refuseDetach(view.getUint32(8, true), why);
    else if (type === MAP) this.#refuseMap(view, why);
    else if (type === UNMAP) this.#refuseUnmap(view, why);
    else {
      if (view.getUint32(4, true) > this.#limits.lastEndpoint) why.add("NOENT");
      if (room < this.#limits.probeSize + 4) why.add("INVAL");
    }
    return why;
  }

  #refuseAttach(view: DataView, why: Set<string>): void {
    const [domainId, endpoint, flags] = [4, 8, 12].map((at) => view.getUint32(at, true));
    const known = (this.features & F_BYPASS_CONFIG) !== 0 ? 1 : 0;
    if (view.getUint32(16, true) !== 0 || (flags & ~known) !== 0) why.add("INVAL");
    if (endpoint > this.#limits.lastEndpoint) why.add("NOENT");
    const domain = this.domains.get(domainId);
    if (domain === undefined) {
      if (this.domains.size >= this.#limits.maxDomains) why.add("NOMEM");
      return;
    }
    if (domain.bypass !== ((flags & 1) !== 0)) why.add("INVAL");
    if (domain.endpoints.has(endpoint)) return;
    const blocked = this.#reservedOf(endpoint)
      .some((range) => domain.mappings.some((mapping) => overlap(range, mapping)));
    if (blocked) why.add("UNSUPP");
  }

  #refuseDetach(endpoint: number, why: Set<string>): void {
    if (endpoint > this.#limits.lastEndpoint) why.add("NOENT");
    else if (this.domainOf(endpoint) === undefined) why.add("INVAL");
  }

  #refuseMap(view: DataView, why: Set<string>): void {
    const { granule, inputLast, outputLast, maxMappings } = this.#limits;
    const wanted = mappingOf(view);
    const known = (this.features & F_MMIO) !== 0 ? 7 : 3;
    if ((wanted.flags & ~known) !== 0 || (wanted.flags & 3) === 0) why.add("INVAL");
    const { first, last, phys } = wanted;
    if (first % granule !== 0n || (last + 1n) % granule !== 0n || phys % granule !== 0n) {
      why.add("RANGE");
    }
    if (last < first || last > inputLast || phys + (last - first) > outputLast) why.add("RANGE");
    const domain = this.domains.get(view.getUint32(4, true));
    if (domain === undefined) {
      why.add("NOENT");
      return;
    }
    if (domain.bypass || domain.mappings.some((mapping) => overlap(mapping, wanted))) {
      why.add("INVAL");
    }
    for (const endpoint of domain.endpoints) {
      if (this.#reservedOf(endpoint).some((range) => overlap(range, wanted))) why.add("INVAL");
    }
    if (this.mappingCount >= maxMappings) why.add("NOMEM");
  }

  #refuseUnmap(view: DataView, why: Set<string>): void {
    if (view.getUint32(24, true) !== 0) why.add("INVAL");
    const domain = this.domains.get(view.getUint32(4, true));
    if (domain === undefined) {
      why.add("NOENT");
      return;
    }
    if (domain.bypass) why.add("INVAL");
    const range = { first: view.getBigUint64(8, true), last: view.getBigUint64(16, true) };
    const split = domain.mappings.some((mapping) =>
      overlap(mapping, range) && (mapping.first < range.first || mapping.last > range.last)
    );
    if (range.last < range.first || split) why.add("RANGE");
  }

  /** Does what a request that is not refused does. */
  apply(bytes: Uint8Array): void {
    const type = RequestModel.typeOf(bytes);
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    if (type === ATTACH) {
      const [domainId, endpoint, flags] = [4, 8, 12].map((at) => view.getUint32(at, true));
      const there = this.domains.get(domainId);
      if (there?.endpoints.has(endpoint)) return;
      const domain = there ?? { bypass: (flags & 1) !== 0, endpoints: new Set(), mappings: [] };
      this.#leave(endpoint);
      this.domains.set(domainId, domain);
      domain.endpoints.add(endpoint);
    } else if (type === DETACH) {
      this.#leave(view.getUint32(8, true));
    } else if (type === MAP) {
      this.domains.get(view.getUint32(4, true))!.mappings.push(mappingOf(view));
    } else if (type === UNMAP) {
      const domain = this.domains.get(view.getUint32(4, true))!;
      const range = { first: view.getBigUint64(8, true), last: view.getBigUint64(16, true) };
      domain.mappings = domain.mappings.filter((mapping) => !overlap(mapping, range));
    }
  }

  /** After a reset no endpoint is attached. */
  reset(): void {
    this.domains.clear();
  }

  /** Mappings over all domains. */
  get mappingCount(): number {
    return [...this.domains.values()].reduce((sum, { mappings }) => sum + mappings.length, 0);
  }

  #leave(endpoint: number): void {
    for (const [id, domain] of this.domains) {
      if (domain.endpoints.delete(endpoint) && domain.endpoints.size === 0) this.domains.delete(id);
    }
  }

  #reservedOf(endpoint: number): readonly { readonly first: bigint; readonly last: bigint }[] {
    return this.#limits.reserved.filter((range) =>
      range.endpoint === undefined || range.endpoint === endpoint
    );
  }
}

function mappingOf(view: DataView): ModelMapping {
  return {
    first: view.getBigUint64(8, true),
    last: view.getBigUint64(16, true),
    phys: view.getBigUint64(24, true),
    flags: view.getUint32(32, true),
  };
}

interface Range {
  readonly first: bigint;
  readonly last: bigint;
}

function overlap(a: Range, b: Range): boolean {
  return a.first <= b.last && b.first <= a.last;
}
