/**
 * The C functions that programs in an L1 guest call, apart from those of the product.
 *
 * @module
 */

const symbols = {
  close: { parameters: ["i32"], result: "i32" }, // int close(int fd)
  errnoLocation: { name: "__errno_location", parameters: [], result: "pointer" }, // int *__errno_location(void)
  fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" }, // int fcntl(int fd, int cmd, int arg)
  getpid: { parameters: [], result: "i32" }, // pid_t getpid(void)
  ioctl: { parameters: ["i32", "u64", "buffer"], result: "i32" }, // int ioctl(int fd, unsigned long request, void *argument)
  open: { parameters: ["buffer", "i32", "u32"], result: "i32" }, // int open(const char *path, int flags, mode_t mode)
  pread: { parameters: ["i32", "buffer", "usize", "i64"], result: "i32" }, // ssize_t pread(int fd, void *buf, size_t count, off_t offset)
  pwrite: { parameters: ["i32", "buffer", "usize", "i64"], result: "i32" }, // ssize_t pwrite(int fd, const void *buf, size_t count, off_t offset)
  prlimit: { parameters: ["i32", "i32", "buffer", "buffer"], result: "i32" }, // int prlimit(pid_t pid, int resource, const struct rlimit *new, struct rlimit *old)
  setresuid: { name: "syscall", parameters: ["u64", "u32", "u32", "u32"], result: "i32" }, // int setresuid(uid_t real, uid_t effective, uid_t saved), by its number
} as const satisfies Deno.ForeignLibraryInterface;

const library = Deno.dlopen("libc.so.6", symbols).symbols;

const O_RDWR = 2;
const O_CLOEXEC = 0o2000000;
const F_SETFD = 2;
const RLIMIT_MEMLOCK = 8;
const SYS_SETRESUID = Deno.build.arch === "x86_64" ? 117n : 147n;

/** `errno` of this thread, right after a call that failed. */
function errno(): number {
  const location = library.errnoLocation();
  if (location === null) throw new Error("Cannot find errno");
  return new Deno.UnsafePointerView(location).getInt32();
}

/** The least that a call of the kernel costs. */
export function getpid(): number {
  return library.getpid();
}

/** Opens a device to read and write; its descriptor. Programs that are started do not inherit it. */
export function openDevice(path: string): number {
  const file = library.open(new TextEncoder().encode(`${path}\0`), O_RDWR | O_CLOEXEC, 0);
  if (file < 0) throw new Error(`Cannot open ${path}: errno ${errno()}`);
  return file;
}

/** Has programs that are started from now on inherit a descriptor. */
export function passOn(file: number): void {
  if (library.fcntl(file, F_SETFD, 0) < 0) throw new Error(`Cannot pass on: errno ${errno()}`);
}

/** Calls a device driver with a structure; 0 or the errno. */
export function ioctl(file: number, request: number, argument: Uint8Array<ArrayBuffer>): number {
  return library.ioctl(file, BigInt(request), argument) >= 0 ? 0 : errno();
}

/** Reads bytes at an offset of a file. Throws unless it gives all of them. */
export function readAt(file: number, offset: number, length: number): DataView<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  const count = library.pread(file, bytes, BigInt(length), BigInt(offset));
  if (count !== length) throw new Error(`Cannot read ${length} bytes: ${count}, errno ${errno()}`);
  return new DataView(bytes.buffer);
}

/** Writes bytes at an offset of a file. Throws unless it takes all of them. */
export function writeAt(file: number, offset: number, bytes: Uint8Array<ArrayBuffer>): void {
  const count = library.pwrite(file, bytes, BigInt(bytes.length), BigInt(offset));
  if (count !== bytes.length) {
    throw new Error(`Cannot write ${bytes.length} bytes: ${count}, errno ${errno()}`);
  }
}

/** Closes a descriptor. */
export function closeFile(file: number): void {
  if (library.close(file) < 0) throw new Error(`Cannot close ${file}: errno ${errno()}`);
}

/** This thread belongs to a user without capabilities, who may lock so many bytes, while `body` runs. */
export function withUser(user: number, lockedBytes: number, body: () => void): void {
  const [own, limit] = [new BigUint64Array(2), new BigUint64Array(2).fill(BigInt(lockedBytes))];
  if (library.prlimit(0, RLIMIT_MEMLOCK, limit, own) < 0) {
    throw new Error(`Cannot limit locked memory: errno ${errno()}`);
  }
  become(user);
  try {
    body();
  } finally {
    become(0);
    library.prlimit(0, RLIMIT_MEMLOCK, own, new BigUint64Array(2));
  }
}

/** By number: the C library's function would change the runtime's other threads as well. */
function become(user: number): void {
  if (library.setresuid(SYS_SETRESUID, user, user, 0) < 0) {
    throw new Error(`Cannot become user ${user}: errno ${errno()}`);
  }
}
