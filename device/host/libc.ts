/**
 * The C library through FFI: one table, each symbol with its C declaration, opened at the first call.
 *
 * Everything here holds on Linux with 64-bit little-endian x86 and Arm alike: both use the generic numbers
 * and the same layouts for the structures named below. Sizes that the C declarations give as `ssize_t` are
 * declared `i32`: no caller moves 2 GiB at once, and a 64-bit result would come back as a bigint.
 *
 * An FFI integer argument of -0 throws; callers pass values that cannot be (`| 0`, or from `>>> 0`).
 */

const symbols = {
  accept4: { parameters: ["i32", "pointer", "pointer", "i32"], result: "i32" }, // int accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" }, // int bind(int fd, const struct sockaddr *addr, socklen_t len)
  close: { parameters: ["i32"], result: "i32" }, // int close(int fd)
  closeOnThread: { name: "close", parameters: ["i32"], result: "i32", nonblocking: true }, // the same, on a thread of the runtime's pool
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" }, // int connect(int fd, const struct sockaddr *addr, socklen_t len)
  errnoLocation: { name: "__errno_location", parameters: [], result: "pointer" }, // int *__errno_location(void)
  eventfd: { parameters: ["u32", "i32"], result: "i32" }, // int eventfd(unsigned int initval, int flags)
  fallocate: { parameters: ["i32", "i32", "i64", "i64"], result: "i32" }, // int fallocate(int fd, int mode, off_t offset, off_t length)
  fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" }, // int fcntl(int fd, int cmd, int arg)
  fdatasync: { parameters: ["i32"], result: "i32" }, // int fdatasync(int fd)
  fdatasyncOnThread: {
    name: "fdatasync",
    parameters: ["i32"],
    result: "i32",
    nonblocking: true,
  }, // the same, on a thread of the runtime's pool
  flock: { parameters: ["i32", "i32"], result: "i32" }, // int flock(int fd, int operation)
  ftruncate: { parameters: ["i32", "i64"], result: "i32" }, // int ftruncate(int fd, off_t length)
  getdents64: { parameters: ["i32", "buffer", "usize"], result: "i32" }, // ssize_t getdents64(int fd, void *entries, size_t size)
  getgrnam: { parameters: ["buffer"], result: "pointer" }, // struct group *getgrnam(const char *name)
  getpagesize: { parameters: [], result: "i32" }, // int getpagesize(void)
  getpeername: { parameters: ["i32", "buffer", "buffer"], result: "i32" }, // int getpeername(int fd, struct sockaddr *addr, socklen_t *len)
  getrlimit: { parameters: ["i32", "buffer"], result: "i32" }, // int getrlimit(int resource, struct rlimit *limits)
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" }, // int getsockname(int fd, struct sockaddr *addr, socklen_t *len)
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" }, // int getsockopt(int fd, int level, int name, void *value, socklen_t *len)
  ioctl: { parameters: ["i32", "u32", "buffer"], result: "i32" }, // int ioctl(int fd, unsigned long request, void *argument); the kernel looks at 32 bits of the request
  ioGetEvents: {
    name: "syscall",
    parameters: ["u64", "u64", "i64", "i64", "buffer", "pointer"],
    result: "i32",
  }, // int io_getevents(aio_context_t ctx, long least, long most, struct io_event *events, struct timespec *timeout), by its number
  ioSetup: { name: "syscall", parameters: ["u64", "u64", "buffer"], result: "i32" }, // int io_setup(unsigned int events, aio_context_t *ctx), by its number
  ioSubmit: { name: "syscall", parameters: ["u64", "u64", "i64", "buffer"], result: "i32" }, // int io_submit(aio_context_t ctx, long count, struct iocb **requests), by its number
  kcmp: { name: "syscall", parameters: ["u64", "i32", "i32", "i32", "u64", "u64"], result: "i32" }, // int kcmp(pid_t one, pid_t other, int type, unsigned long index, unsigned long otherIndex), by its number
  lchown: { parameters: ["buffer", "u32", "u32"], result: "i32" }, // int lchown(const char *path, uid_t owner, gid_t group)
  kill: { parameters: ["i32", "i32"], result: "i32" }, // int kill(pid_t pid, int signal)
  link: { parameters: ["buffer", "buffer"], result: "i32" }, // int link(const char *old_path, const char *new_path)
  listen: { parameters: ["i32", "i32"], result: "i32" }, // int listen(int fd, int backlog)
  lseek: { parameters: ["i32", "i64", "i32"], result: "i64" }, // off_t lseek(int fd, off_t offset, int whence)
  madvise: { parameters: ["usize", "usize", "i32"], result: "i32" }, // int madvise(void *addr, size_t len, int advice)
  memfdCreate: { name: "memfd_create", parameters: ["buffer", "u32"], result: "i32" }, // int memfd_create(const char *name, unsigned int flags)
  mlock2: { parameters: ["usize", "usize", "u32"], result: "i32" }, // int mlock2(const void *addr, size_t len, unsigned flags)
  mmap: { parameters: ["pointer", "usize", "i32", "i32", "i32", "i64"], result: "pointer" }, // void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
  mprotect: { parameters: ["pointer", "usize", "i32"], result: "i32" }, // int mprotect(void *addr, size_t len, int prot)
  munmap: { parameters: ["pointer", "usize"], result: "i32" }, // int munmap(void *addr, size_t len)
  open: { parameters: ["buffer", "i32", "u32"], result: "i32" }, // int open(const char *path, int flags, mode_t mode)
  openat: { parameters: ["i32", "buffer", "i32"], result: "i32" }, // int openat(int directory, const char *path, int flags)
  pidfdGetfd: { name: "syscall", parameters: ["u64", "i32", "i32", "u32"], result: "i32" }, // int pidfd_getfd(int pidfd, int targetfd, unsigned int flags), by its number
  pidfdOpen: { name: "syscall", parameters: ["u64", "i32", "u32"], result: "i32" }, // int pidfd_open(pid_t pid, unsigned int flags), by its number
  pipe2: { parameters: ["buffer", "i32"], result: "i32" }, // int pipe2(int fds[2], int flags)
  poll: { parameters: ["buffer", "u64", "i32"], result: "i32" }, // int poll(struct pollfd *fds, nfds_t count, int timeout)
  pollOnThread: {
    name: "poll",
    parameters: ["buffer", "u64", "i32"],
    result: "i32",
    nonblocking: true,
  }, // the same, on a thread of the runtime's pool
  prctl: { parameters: ["i32", "u64", "u64", "u64", "u64"], result: "i32" }, // int prctl(int operation, ...)
  pread: { parameters: ["i32", "buffer", "usize", "i64"], result: "i32" }, // ssize_t pread(int fd, void *buf, size_t count, off_t offset)
  preadv2: { parameters: ["i32", "buffer", "i32", "i64", "i32"], result: "i32" }, // ssize_t preadv2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
  pwritev2: { parameters: ["i32", "buffer", "i32", "i64", "i32"], result: "i32" }, // ssize_t pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
  read: { parameters: ["i32", "buffer", "usize"], result: "i32" }, // ssize_t read(int fd, void *buf, size_t count)
  readlink: { parameters: ["buffer", "buffer", "usize"], result: "i32" }, // ssize_t readlink(const char *path, char *buf, size_t size)
  recvmsg: { parameters: ["i32", "buffer", "i32"], result: "i32" }, // ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
  schedGetAffinity: {
    name: "sched_getaffinity",
    parameters: ["i32", "usize", "buffer"],
    result: "i32",
  }, // int sched_getaffinity(pid_t pid, size_t size, cpu_set_t *mask)
  schedGetCpu: { name: "sched_getcpu", parameters: [], result: "i32" }, // int sched_getcpu(void)
  schedSetAffinity: {
    name: "sched_setaffinity",
    parameters: ["i32", "usize", "buffer"],
    result: "i32",
  }, // int sched_setaffinity(pid_t pid, size_t size, const cpu_set_t *mask)
  sendmsg: { parameters: ["i32", "buffer", "i32"], result: "i32" }, // ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" }, // int setsockopt(int fd, int level, int name, const void *value, socklen_t len)
  sigaction: { parameters: ["i32", "buffer", "pointer"], result: "i32" }, // int sigaction(int signum, const struct sigaction *act, struct sigaction *old)
  shutdown: { parameters: ["i32", "i32"], result: "i32" }, // int shutdown(int fd, int how)
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" }, // int socket(int domain, int type, int protocol)
  socketpair: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" }, // int socketpair(int domain, int type, int protocol, int fds[2])
  spawn: {
    name: "posix_spawn",
    parameters: ["buffer", "buffer", "buffer", "buffer", "buffer", "buffer"],
    result: "i32",
  }, // int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *, const posix_spawnattr_t *, char *const argv[], char *const envp[])
  spawnActionsDestroy: {
    name: "posix_spawn_file_actions_destroy",
    parameters: ["buffer"],
    result: "i32",
  }, // int posix_spawn_file_actions_destroy(posix_spawn_file_actions_t *)
  spawnActionsInit: {
    name: "posix_spawn_file_actions_init",
    parameters: ["buffer"],
    result: "i32",
  }, // int posix_spawn_file_actions_init(posix_spawn_file_actions_t *)
  spawnAddDuplicate: {
    name: "posix_spawn_file_actions_adddup2",
    parameters: ["buffer", "i32", "i32"],
    result: "i32",
  }, // int posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t *, int fd, int new_fd)
  spawnAttributesDestroy: {
    name: "posix_spawnattr_destroy",
    parameters: ["buffer"],
    result: "i32",
  }, // int posix_spawnattr_destroy(posix_spawnattr_t *)
  spawnAttributesInit: { name: "posix_spawnattr_init", parameters: ["buffer"], result: "i32" }, // int posix_spawnattr_init(posix_spawnattr_t *)
  spawnSetFlags: {
    name: "posix_spawnattr_setflags",
    parameters: ["buffer", "i16"],
    result: "i32",
  }, // int posix_spawnattr_setflags(posix_spawnattr_t *, short flags)
  statx: { parameters: ["i32", "buffer", "i32", "u32", "buffer"], result: "i32" }, // int statx(int dirfd, const char *path, int flags, unsigned int mask, struct statx *out)
  systemCall: {
    name: "syscall",
    parameters: ["u64", "u64", "u64", "u64", "u64", "u64"],
    result: "i32",
  }, // long syscall(long number, ...), for calls whose result fits: what the C library has no function for
  umask: { parameters: ["u32"], result: "u32" }, // mode_t umask(mode_t mask)
  unlink: { parameters: ["buffer"], result: "i32" }, // int unlink(const char *path)
  waitpid: { parameters: ["i32", "buffer", "i32"], result: "i32" }, // pid_t waitpid(pid_t pid, int *status, int options)
  write: { parameters: ["i32", "buffer", "usize"], result: "i32" }, // ssize_t write(int fd, const void *buf, size_t count)
  writeOnThread: {
    name: "write",
    parameters: ["i32", "buffer", "usize"],
    result: "i32",
    nonblocking: true,
  }, // the same, on a thread of the runtime's pool
} as const satisfies Deno.ForeignLibraryInterface;

/** The C functions as Deno gives them. */
export type Libc = Deno.DynamicLibrary<typeof symbols>["symbols"];

let opened: Libc | undefined;
let errnoCell: Int32Array | undefined;

/** The C library; opened by the first call, which needs `--allow-ffi`. */
export function libc(): Libc {
  if (opened === undefined) opened = Deno.dlopen("libc.so.6", symbols).symbols;
  return opened;
}

/**
 * Replaces the C library by another table, or with `undefined` restores it: for tests, in which calls have to fail that
 * otherwise never do. (A preloaded library would not work: symbols are looked up in the C library itself. It would also
 * affect the runtime's own calls.)
 */
export function replaceLibc(replacement: Libc | undefined): void {
  opened = replacement;
}

/**
 * Attempts of a call that a session depends on and that fails with an unexpected error. Between the call and the read
 * of {@linkcode errno} the runtime may have made failing calls of its own, as it collects garbage and compiles at any
 * time. So an error counts if it persists.
 */
export const MOST_TRIES = 3;

/**
 * `errno` of this thread: read it right after the call that failed. A call on another thread
 * ({@linkcode Libc.pollOnThread}) leaves its own where it cannot be read.
 */
export function errno(): number {
  if (errnoCell === undefined) {
    const location = libc().errnoLocation();
    if (location === null) throw new Error("Cannot find errno: __errno_location gave NULL");
    errnoCell = new Int32Array(Deno.UnsafePointerView.getArrayBuffer(location, 4));
  }
  return errnoCell[0];
}

/** The address of a buffer's first byte, for structures that hold pointers. The buffer must outlive the use. */
export function addressOf(buffer: ArrayBuffer): bigint {
  return Deno.UnsafePointer.value(Deno.UnsafePointer.of(buffer));
}

/** A C string: the bytes of `text` in UTF-8 and a zero. Throws a RangeError if `text` holds a zero itself. */
export function cString(text: string): Uint8Array<ArrayBuffer> {
  if (text.includes("\0")) {
    throw new RangeError("Cannot pass text with a zero character to the host");
  }
  return new TextEncoder().encode(`${text}\0`);
}
