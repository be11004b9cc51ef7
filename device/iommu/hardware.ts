/**
 * The hardware side of the device: table memory, page tables and the device tables of each IOMMU unit.
 *
 * One unit stands for one IOMMU of one format in one PCI segment. Its device tables lead from the 16-bit
 * source id of an endpoint to the page table of the endpoint's domain, and a translation starts there, as
 * in hardware. A unit is made with the first endpoint attached through it.
 */
import {
  createUnit,
  describeFormat,
  type Errno,
  HardwareTable,
  type TableFormat,
  type TableMemory,
  type TranslationUnit,
  type WalkResult,
} from "../../pagetable/mod.ts";

/** An endpoint as device tables know it. */
export interface TranslatedEndpoint {
  /** Its 32-bit id: PCI segment and source id. */
  readonly id: number;
  /** Format of the page tables that translate for it. */
  readonly format: string;
  /** The unit that it is behind, once {@linkcode Hardware} has looked it up. */
  unit: TranslationUnit | undefined;
}

/** How page tables are made. */
export interface HardwareOptions {
  /** Where all tables live. */
  readonly memory: TableMemory;
  /** Levels of the tables, where the format leaves a choice; its default otherwise. */
  readonly levels?: number;
  /** Leaf sizes in bytes that tables may use; all of the format's by default. */
  readonly pageSizes?: readonly number[];
}

/** Tables and units of one device. */
export class Hardware {
  readonly #options: HardwareOptions;
  readonly #units = new Map<string, TranslationUnit>();
  /** Tables of one description share what is computed from it. */
  readonly #descriptions = new Map<string, TableFormat>();

  /** Nothing is allocated yet. */
  constructor(options: HardwareOptions) {
    this.#options = options;
  }

  /** Where all tables live. */
  get memory(): TableMemory {
    return this.#options.memory;
  }

  /**
   * A new, empty page table.
   *
   * A mapping that may only be written is widened to one that may be read too where the format has no
   * write-only entries: the specification allows exactly that (virtio 1.4, 5.13.6.5.1).
   */
  createTable(format: string): HardwareTable | Errno {
    let description = this.#descriptions.get(format);
    if (description === undefined) {
      const { levels, pageSizes } = this.#options;
      description = describeFormat(format, {
        writeOnly: "widen",
        ...(levels === undefined ? {} : { levels }),
        ...(pageSizes === undefined ? {} : { pageSizes }),
      });
      this.#descriptions.set(format, description);
    }
    return HardwareTable.create(description, this.memory);
  }

  /** Points the device tables of an endpoint at a page table. */
  attach(endpoint: TranslatedEndpoint, table: HardwareTable): Errno {
    return this.#unit(endpoint).attach(endpoint.id % 65536, table);
  }

  /** Lets the accesses of an endpoint pass untranslated. */
  bypass(endpoint: TranslatedEndpoint): Errno {
    return this.#unit(endpoint).bypass(endpoint.id % 65536);
  }

  /** Stops an endpoint: whatever it accesses is a fault. */
  detach(endpoint: TranslatedEndpoint): void {
    const unit = this.#unit(endpoint);
    unit.detach(endpoint.id % 65536);
    unit.gather.flush();
  }

  /** Flushes what changed in the device tables of an endpoint. */
  flush(endpoint: TranslatedEndpoint): void {
    this.#unit(endpoint).gather.flush();
  }

  /**
   * Translates one page as the hardware would, beginning with the endpoint's entry in the device tables.
   *
   * @param access `READ` or `WRITE`.
   * @returns Whether the access is allowed; the result has the details either way.
   */
  walk(endpoint: TranslatedEndpoint, page: number, access: number, result: WalkResult): boolean {
    return this.#unit(endpoint).walk(endpoint.id % 65536, page, access, result);
  }

  /** As {@linkcode walk}, and marks the entries as accessed and dirty where hardware would. */
  access(endpoint: TranslatedEndpoint, page: number, access: number, result: WalkResult): boolean {
    return this.#unit(endpoint).access(endpoint.id % 65536, page, access, result);
  }

  /** Gives the memory of all device tables back. */
  destroy(): void {
    for (const unit of this.#units.values()) unit.destroy();
    this.#units.clear();
  }

  #unit(endpoint: TranslatedEndpoint): TranslationUnit {
    return endpoint.unit ??= this.#unitOf(endpoint);
  }

  #unitOf({ id, format }: TranslatedEndpoint): TranslationUnit {
    const key = `${format} ${Math.floor(id / 65536)}`;
    let unit = this.#units.get(key);
    if (unit === undefined) {
      unit = createUnit(format, this.memory);
      this.#units.set(key, unit);
    }
    return unit;
  }
}
