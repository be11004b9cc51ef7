/**
 * Table memory: an arena of 4 KiB pages that hardware tables are built in.
 *
 * A page has an index in the arena, an int32 that the builder uses, and a physical frame, `baseFrame + index`,
 * that entries hold. Blocks of 2^order pages are aligned to their size as physical addresses, as specifications
 * ask for concatenated tables, large granules and stream tables.
 *
 * The memory is one Int32Array that never moves; an entry is two words, low half first. State of pages is in
 * typed arrays of one element for each page, so that allocating and freeing allocate no JavaScript objects.
 */
import { PAGE_SIZE } from "./page_table.ts";

/** Words of 32 bits in one page of table memory. */
export const PAGE_WORDS = 1024;
/** Shifts the number of a page in table memory to the index of its first 32-bit word. */
export const PAGE_WORDS_SHIFT = 10;
/** Most pages an arena can have: word indexes stay below 2^31. */
export const MOST_TABLE_PAGES = 2 ** 21 - 1;

const ORDERS = 21;
const NONE = -1;
/** Bits of the per-page state byte. */
const ALLOCATED = 1;
const NEEDS_ZERO = 2;
const FREE_BLOCK = 4;
const ORDER_SHIFT = 3;

/** Memory that a walker reads tables from: an arena, guest memory, a file. */
export interface TableReader {
  /** Low half of the entry loaded last. */
  readonly low: number;
  /** High half of the entry loaded last. */
  readonly high: number;
  /**
   * Loads an 8-byte entry and leaves its halves in `low` and `high`.
   *
   * @param frame number of the 4 KiB page of physical memory.
   * @param index which 8-byte unit of that page, 0 to 511.
   * @returns false where the memory cannot be read.
   */
  load(frame: number, index: number): boolean;
}

/** Memory in which a walker can also set accessed and dirty bits. */
export interface TableWriter extends TableReader {
  /** Replaces the low half of an entry that {@linkcode TableReader.load} could read. */
  storeLow(frame: number, index: number, low: number): void;
}

/** Size and place of an arena. */
export interface TableMemoryOptions {
  /** Physical frame of the arena's first page. */
  readonly baseFrame: number;
  /** Size in bytes, for memory made here; the system backs it as it is touched. */
  readonly bytes?: number;
  /** Memory handed in, such as a mapped memfd: used from its start, in whole pages. */
  readonly buffer?: ArrayBuffer;
  /** Most pages that may be in use at once; default: all. */
  readonly limitPages?: number;
}

/** An arena of table pages. Page numbers in its methods are indexes in the arena. */
export class TableMemory implements TableWriter {
  /** Physical frame of page 0. */
  readonly baseFrame: number;
  /** Pages in the arena. */
  readonly capacity: number;
  /** Most pages that may be in use at once. */
  readonly limit: number;
  /** The memory: page `p` is words `p * 1024` to `p * 1024 + 1023`. */
  readonly words: Int32Array<ArrayBuffer>;
  /** For the builder: entries in use in the table that starts at each page. */
  readonly liveEntries: Int32Array<ArrayBuffer>;
  /** For the builder: how many of these lead to further tables. */
  readonly childTables: Int32Array<ArrayBuffer>;
  /** For the builder: by its first page, the next block in a chain of blocks that are not in use. */
  readonly links: Int32Array<ArrayBuffer>;
  /** Low half of the entry loaded last. */
  low = 0;
  /** High half of the entry loaded last. */
  high = 0;

  readonly #state: Uint8Array<ArrayBuffer>;
  readonly #heads: Int32Array<ArrayBuffer> = new Int32Array(ORDERS).fill(NONE);
  readonly #handedIn: boolean;
  #fresh = 0;
  #used = 0;
  #quarantined = 0;
  #freedSinceCoalesce = false;

  /**
   * Makes an arena over `bytes` of new memory or over `buffer`.
   *
   * @throws RangeError for a base or a size that cannot be.
   */
  constructor(options: TableMemoryOptions) {
    const { baseFrame, bytes, buffer } = options;
    if (!Number.isSafeInteger(baseFrame) || baseFrame < 0 || baseFrame >= 2 ** 40) {
      throw new RangeError(`Cannot make table memory: base frame ${baseFrame} is not in 0 to 2^40`);
    }
    if ((bytes === undefined) === (buffer === undefined)) {
      throw new TypeError("Cannot make table memory: give either bytes or a buffer");
    }
    const pages = Math.floor((buffer === undefined ? bytes ?? 0 : buffer.byteLength) / PAGE_SIZE);
    if (!(pages >= 1 && pages <= MOST_TABLE_PAGES)) {
      throw new RangeError(
        `Cannot make table memory: ${pages} pages is not in 1 to ${MOST_TABLE_PAGES}`,
      );
    }
    const limit = options.limitPages ?? pages;
    if (!Number.isSafeInteger(limit) || limit < 0) {
      throw new RangeError(`Cannot make table memory: limit ${limit} is not a number of pages`);
    }
    this.baseFrame = baseFrame;
    this.capacity = pages;
    this.limit = Math.min(limit, pages);
    this.words = new Int32Array(
      buffer ?? new ArrayBuffer(pages * PAGE_SIZE),
      0,
      pages * PAGE_WORDS,
    );
    this.liveEntries = new Int32Array(pages);
    this.childTables = new Int32Array(pages);
    this.links = new Int32Array(pages);
    this.#state = new Uint8Array(pages);
    this.#handedIn = buffer !== undefined;
  }

  /** Pages that are allocated, those in quarantine included. */
  get used(): number {
    return this.#used;
  }

  /** Pages from the start of the arena of which some were ever in use; those beyond hold nothing. */
  get touched(): number {
    return this.#fresh;
  }

  /** Pages that were freed and wait for an invalidation before they are used again. */
  get quarantined(): number {
    return this.#quarantined;
  }

  /**
   * Takes a block of 2^`order` pages, zeroed. With `zeroed` false they may hold anything: for a caller that writes
   * every word before it links the block.
   *
   * @returns index of its first page, or -1 without memory.
   */
  allocate(order: number, zeroed = true): number {
    const page = this.#take(order);
    if (page !== NONE) this.#own(page, order, zeroed);
    return page;
  }

  #take(order: number): number {
    const pages = 1 << order;
    if (this.#used + pages > this.limit) return NONE;
    let page = this.#heads[order];
    if (page !== NONE) {
      this.#heads[order] = this.links[page];
    } else {
      page = this.#carve(order);
      if (page === NONE) return NONE;
    }
    this.#used += pages;
    return page;
  }

  /**
   * Frees a block. `clean` says that every word of it is zero already.
   *
   * @throws Error if `page` is not an allocated block of that order.
   */
  free(page: number, order: number, clean = false): void {
    this.#retire(page, order, clean);
    this.links[page] = this.#heads[order];
    this.#heads[order] = page;
    this.#used -= 1 << order;
    this.#freedSinceCoalesce = true;
  }

  /**
   * Puts a block at the front of a chain of freed blocks of the same order that may not be reused yet.
   *
   * @param chain first block of the chain so far, or -1.
   * @returns the new first block, which is `page`.
   */
  quarantine(page: number, order: number, clean: boolean, chain: number): number {
    this.#retire(page, order, clean);
    this.links[page] = chain;
    this.#quarantined += 1 << order;
    return page;
  }

  /**
   * As {@linkcode quarantine} for `blocks` blocks that the caller has chained by their {@linkcode links} and that
   * are not clean. Their states stay as they are until they are allocated again: with 512 leaf tables in a GiB,
   * not touching them is a fifth of an unmap of it. A second free of one of them is not noticed, though.
   *
   * @param last The last of them, which is put before `chain`, the chain so far, or -1.
   */
  quarantineChain(last: number, order: number, blocks: number, chain: number): void {
    this.links[last] = chain;
    this.#quarantined += blocks << order;
  }

  /** Makes a chain that {@linkcode quarantine} built free: `blocks` of them, from `first` to `last`. */
  releaseChain(first: number, last: number, order: number, blocks: number): void {
    this.links[last] = this.#heads[order];
    this.#heads[order] = first;
    this.#quarantined -= blocks * (1 << order);
    this.#used -= blocks * (1 << order);
    this.#freedSinceCoalesce = true;
  }

  load(frame: number, index: number): boolean {
    const page = frame - this.baseFrame;
    if (!(page >= 0 && page < this.capacity)) return false;
    const at = ((page << PAGE_WORDS_SHIFT) + (index << 1)) | 0;
    this.low = this.words[at];
    this.high = this.words[at + 1];
    return true;
  }

  storeLow(frame: number, index: number, low: number): void {
    this.words[(frame - this.baseFrame) * PAGE_WORDS + index * 2] = low;
  }

  /** Marks a block as allocated, and zeroes its pages if `zeroed` and where they are not zero already. */
  #own(page: number, order: number, zeroed: boolean): void {
    const state = this.#state;
    for (let at = page; at < page + (1 << order); at++) {
      if (zeroed && (state[at] & NEEDS_ZERO) !== 0) {
        this.words.fill(0, at * PAGE_WORDS, (at + 1) * PAGE_WORDS);
      }
      state[at] = NEEDS_ZERO;
    }
    state[page] = NEEDS_ZERO | ALLOCATED | (order << ORDER_SHIFT);
  }

  #retire(page: number, order: number, clean: boolean): void {
    const state = this.#state;
    const seen = state[page] & ~NEEDS_ZERO;
    if (seen !== (ALLOCATED | (order << ORDER_SHIFT))) refuseFree(page, order);
    const kept = clean ? 0 : NEEDS_ZERO;
    state[page] = kept;
    if (order > 0) state.fill(kept, page + 1, page + (1 << order));
  }

  /** Finds a block where the list of its order is empty: unused pages, part of a larger block, or merged blocks. */
  #carve(order: number): number {
    const pages = 1 << order;
    const misaligned = (this.baseFrame + this.#fresh) % pages;
    const start = this.#fresh + (misaligned === 0 ? 0 : pages - misaligned);
    if (start + pages <= this.capacity) {
      if (this.#handedIn) this.#state.fill(NEEDS_ZERO, this.#fresh, start + pages);
      this.#give(this.#fresh, start);
      this.#fresh = start + pages;
      return start;
    }
    const split = this.#split(order);
    if (split !== NONE || order === 0 || !this.#freedSinceCoalesce) return split;
    this.#coalesce();
    return this.#split(order);
  }

  #split(order: number): number {
    for (let from = order; from < ORDERS; from++) {
      const page = this.#heads[from];
      if (page === NONE) continue;
      this.#heads[from] = this.links[page];
      this.#give(page + (1 << order), page + (1 << from));
      return page;
    }
    return NONE;
  }

  /** Puts free pages `[from, to)` on the lists as the largest aligned blocks they hold. */
  #give(from: number, to: number): void {
    let page = from;
    while (page < to) {
      let order = 0;
      while (
        order + 1 < ORDERS && page + (2 << order) <= to &&
        (this.baseFrame + page) % (2 << order) === 0
      ) order++;
      this.links[page] = this.#heads[order];
      this.#heads[order] = page;
      page += 1 << order;
    }
  }

  /** Merges adjacent free blocks. Reads the state of every page, so it runs only if a large block is missing. */
  #coalesce(): void {
    const state = this.#state;
    for (let order = 0; order < ORDERS; order++) {
      for (let page = this.#heads[order]; page !== NONE; page = this.links[page]) {
        for (let at = page; at < page + (1 << order); at++) {
          state[at] = (state[at] & NEEDS_ZERO) | FREE_BLOCK;
        }
      }
      this.#heads[order] = NONE;
    }
    let from = 0;
    while (from < this.#fresh) {
      if ((state[from] & (FREE_BLOCK | ALLOCATED)) !== FREE_BLOCK) {
        from += (state[from] & ALLOCATED) !== 0 ? 1 << (state[from] >> ORDER_SHIFT) : 1;
        continue;
      }
      let to = from;
      while (to < this.#fresh && (state[to] & (FREE_BLOCK | ALLOCATED)) === FREE_BLOCK) {
        state[to++] &= ~FREE_BLOCK;
      }
      this.#give(from, to);
      from = to;
    }
    this.#freedSinceCoalesce = false;
  }
}

function refuseFree(page: number, order: number): never {
  throw new Error(`Cannot free table page ${page}: not an allocated block of order ${order}`);
}
