/**
 * The system calls of a process in the sandbox. What the lists are made of was measured: `tests/device/sandbox/measure.ts`
 * runs tests under strace and compares.
 *
 * Deno, V8 and the C library of another version may make others. Those fail with EPERM, which their callers get along
 * with, and are logged. Calls that nothing but an attack makes end the process.
 */
import type { SystemCallName } from "../host/system_calls.ts";

/** What `serve` was seen to call, its runtime included, and what is allowed whatever the arguments. */
export const ALLOWED: readonly SystemCallName[] = [
  // Sockets, events, polling.
  ...["accept4", "bind", "connect", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2"],
  ...["epoll_wait", "eventfd2", "getpeername", "getsockname", "getsockopt", "listen", "pipe2"],
  ...["poll", "ppoll", "recvfrom", "recvmsg", "sendmsg", "sendto", "setsockopt", "shutdown"],
  // Files that are open already, and looking at others.
  ...["close", "fallocate", "fcntl", "fdatasync", "flock", "fstat", "ftruncate", "getdents64"],
  ...["io_getevents", "io_setup", "io_submit", "ioctl", "lseek", "lstat", "newfstatat", "pread64"],
  ...[
    "preadv2",
    "pwrite64",
    "pwritev2",
    "read",
    "readlink",
    "readlinkat",
    "readv",
    "stat",
    "statx",
  ],
  ...["write", "writev"],
  // Names of sockets.
  ...["lchown", "link", "linkat", "umask", "unlink", "unlinkat"],
  // Memory.
  ...["brk", "madvise", "membarrier", "memfd_create", "mmap", "mprotect", "mremap", "munmap"],
  ...["pkey_alloc", "pkey_free", "pkey_mprotect"],
  // Threads, signals, clocks.
  ...["clock_getres", "clock_gettime", "clock_nanosleep", "exit", "exit_group", "futex", "getcpu"],
  ...["getpid", "getrandom", "gettid", "gettimeofday", "nanosleep", "pidfd_open"],
  ...["restart_syscall", "rseq", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn"],
  ...["sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity", "sched_getparam"],
  ...["sched_getscheduler", "sched_yield", "set_robust_list", "sigaltstack"],
  // What the process is and has.
  ...["getegid", "geteuid", "getgid", "getppid", "getrlimit", "getrusage", "getuid", "sysinfo"],
  "uname",
] as SystemCallName[];

/** What the network needs besides. */
export const ALLOWED_WITH_NETWORK: readonly SystemCallName[] = ["recvmmsg", "sendmmsg"];

/** What locking memory needs besides. */
export const ALLOWED_WITH_LOCKS: readonly SystemCallName[] = ["mlock2", "munlock"];

/** What starting programs, and their start up to a sandbox of their own, needs besides. */
export const ALLOWED_WITH_PROGRAMS: readonly SystemCallName[] = [
  ...["access", "arch_prctl", "faccessat", "faccessat2", "fchdir"],
  ...[
    "capget",
    "capset",
    "chdir",
    "clone",
    "clone3",
    "dup",
    "dup2",
    "dup3",
    "execve",
    "fork",
    "getcwd",
  ],
  ...["kill", "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self"],
  ...["openat", "pidfd_send_signal", "prctl", "prlimit64", "sched_setaffinity", "seccomp"],
  ...["set_tid_address", "setpgid", "setsid", "tgkill", "vfork", "wait4", "waitid", "statfs"],
] as SystemCallName[];

/** What nothing but an attack calls: it ends the process. */
export const FATAL: readonly SystemCallName[] = [
  ...["execve", "execveat", "fork", "vfork", "ptrace", "process_vm_readv", "process_vm_writev"],
  ...["pidfd_getfd", "pidfd_send_signal", "kill"],
  ...["mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "fsopen", "fsmount"],
  ...["fsconfig", "mount_setattr", "unshare", "setns", "swapon", "swapoff", "quotactl"],
  ...["bpf", "perf_event_open", "userfaultfd", "open_by_handle_at", "io_uring_setup"],
  ...["keyctl", "add_key", "request_key", "kexec_load", "kexec_file_load", "init_module"],
  ...["finit_module", "delete_module", "reboot", "settimeofday", "clock_settime"],
  ...["setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups", "capset"],
  ...["iopl", "ioperm"],
] as SystemCallName[];
