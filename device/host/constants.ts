/** Numbers of the Linux interfaces that {@link ./libc.ts} calls; the same on x86-64 and arm64. */

/** It is not permitted. */
export const EPERM = 1;
/** No such process. */
export const ESRCH = 3;
/** A signal arrived before anything happened. */
export const EINTR = 4;
/** The descriptor is not open. */
export const EBADF = 9;
/** There is no such child process. */
export const ECHILD = 10;
/** The operation would block. */
export const EAGAIN = 11;
/** There is no memory for it. */
export const ENOMEM = 12;
/** It is not permitted, by the mode of a file or to this user. */
export const EACCES = 13;
/** Invalid argument. */
export const EINVAL = 22;
/** The call is unknown. */
export const ENOSYS = 38;
/** The other end of a pipe or socket is closed. */
export const EPIPE = 32;
/** A pending connection went away before it was accepted. */
export const ECONNABORTED = 103;
/** The peer closed the connection with data unread. */
export const ECONNRESET = 104;
/** The socket is not connected. */
export const ENOTCONN = 107;
/** The file cannot do that. */
export const EOPNOTSUPP = 95;
/** Too many descriptors are on their way. */
export const ETOOMANYREFS = 109;
/** Nothing listens there. */
export const ECONNREFUSED = 111;
/** No such file. */
export const ENOENT = 2;
/** There is such a file already. */
export const EEXIST = 17;
/** Something is bound to that address already. */
export const EADDRINUSE = 98;

/** Unix domain sockets. */
export const AF_UNIX = 1;
/** A byte stream. */
export const SOCK_STREAM = 1;
/** Packets, each of which arrives whole. */
export const SOCK_SEQPACKET = 5;
/** Close on exec, for sockets; the same bit as `EFD_CLOEXEC` and `O_CLOEXEC`. */
export const SOCK_CLOEXEC = 0x80000;
/** Do not block, for sockets; the same bit as `EFD_NONBLOCK` and `O_NONBLOCK`. */
export const SOCK_NONBLOCK = 0x800;
/** Options of the socket itself; also the level of `SCM_RIGHTS`. */
export const SOL_SOCKET = 1;
/** Option: the socket's type. */
export const SO_TYPE = 3;
/** Option: bytes that may wait to be received by the peer. */
export const SO_SNDBUF = 7;
/** Option: pid, uid and gid of the peer. */
export const SO_PEERCRED = 17;
/** Option: whether the socket listens. */
export const SO_ACCEPTCONN = 30;
/** Option: the socket's address family. */
export const SO_DOMAIN = 39;
/** Control message that carries descriptors. */
export const SCM_RIGHTS = 1;
/** Most descriptors that the kernel passes in one control message. */
export const SCM_MAX_FD = 253;
/** Receive flag in the answer: control data was cut off. */
export const MSG_CTRUNC = 0x8;
/** Receive flag in the answer: the packet was longer than the buffer. */
export const MSG_TRUNC = 0x20;
/** Do not block this call. */
export const MSG_DONTWAIT = 0x40;
/** No SIGPIPE for this call. */
export const MSG_NOSIGNAL = 0x4000;
/** Received descriptors are closed on exec. */
export const MSG_CMSG_CLOEXEC = 0x40000000;

/** `shutdown`: neither receive nor send any more. */
export const SHUT_RDWR = 2;
/** `ioctl`: bytes of a socket that can be read. */
export const FIONREAD = 0x541b;
/** Option: a descriptor of the peer's process (Linux 6.5). */
export const SO_PEERPIDFD = 77;
/** `getrlimit`: open descriptors. */
export const RLIMIT_NOFILE = 7;
/** `getrlimit`: bytes of memory that may be locked. */
export const RLIMIT_MEMLOCK = 8;
/** `fcntl`: size of a pipe in bytes. */
export const F_GETPIPE_SZ = 1032;

/** `fcntl`: duplicate, with close on exec. */
export const F_DUPFD_CLOEXEC = 1030;
/** `fcntl`: set the descriptor's flags. */
export const F_SETFD = 2;
/** `fcntl`: read the file's status flags. */
export const F_GETFL = 3;
/** `fcntl`: set the file's status flags. */
export const F_SETFL = 4;
/** Descriptor flag: close on exec. */
export const FD_CLOEXEC = 1;
/** `fcntl`: seal a memfd. */
export const F_ADD_SEALS = 1033;
/** `fcntl`: read a memfd's seals. */
export const F_GET_SEALS = 1034;
/** Seal: no more seals. */
export const F_SEAL_SEAL = 1;
/** Seal: the file cannot shrink. */
export const F_SEAL_SHRINK = 2;
/** Seal: the file cannot grow. */
export const F_SEAL_GROW = 4;

/** `memfd_create`: close on exec. */
export const MFD_CLOEXEC = 1;
/** `memfd_create`: the file can be sealed. */
export const MFD_ALLOW_SEALING = 2;
/** `mmap`: readable and writable. */
export const PROT_READ_WRITE = 3;
/** `mprotect`: readable and executable. */
export const PROT_READ_EXECUTE = 5;
/** `mmap`: writes stay here. */
export const MAP_PRIVATE = 2;
/** `mmap`: no file, zeros. */
export const MAP_ANONYMOUS = 0x20;
/** `mmap`: writes reach the file. */
export const MAP_SHARED = 1;
/** `mmap`: the pointer `(void *)-1` that it returns where it fails. */
export const MAP_FAILED = 0xffff_ffff_ffff_ffffn;
/** `mmap`: no swap space is set aside. */
export const MAP_NORESERVE = 0x4000;
/** `mlock2`: lock pages when they are first touched. */
export const MLOCK_ONFAULT = 1;
/** `madvise`: have pages there, readable, as if each had been read (Linux 5.14). */
export const MADV_POPULATE_READ = 22;

/** `poll`: there is something to read. */
export const POLLIN = 0x1;
/** `poll`: there is room to write. */
export const POLLOUT = 0x4;
/** `poll`, in the answer: an error. */
export const POLLERR = 0x8;
/** `poll`, in the answer: the other end is closed. */
export const POLLHUP = 0x10;
/** `poll`, in the answer: the descriptor is not open. */
export const POLLNVAL = 0x20;

/** `preadv2`, `pwritev2`: do not block this call. */
export const RWF_NOWAIT = 0x8;

/** `statx`: paths are relative to the working directory. */
export const AT_FDCWD = -100;
/** `statx`: look at the link, not at what it names. */
export const AT_SYMLINK_NOFOLLOW = 0x100;
/** `statx`: look at the descriptor itself. */
export const AT_EMPTY_PATH = 0x1000;
/** `statx`: the basic fields. */
export const STATX_BASIC = 0x7ff;
/** Mask of the file type within a mode. */
export const S_IFMT = 0xf000;
/** A regular file. */
export const S_IFREG = 0x8000;
/** A socket. */
export const S_IFSOCK = 0xc000;
/** A block device. */
export const S_IFBLK = 0x6000;
/** A character device. */
export const S_IFCHR = 0x2000;

/** `open`: for reading only. */
export const O_RDONLY = 0;
/** `open`: for reading and writing. */
export const O_RDWR = 2;
/** `open`: close on exec. */
export const O_CLOEXEC = 0x80000;
/** `flock`: shared with others that share. */
export const LOCK_SH = 1;
/** `flock`: for one alone. */
export const LOCK_EX = 2;
/** `flock`: do not wait. */
export const LOCK_NB = 4;
/** `lseek`: from the beginning. */
export const SEEK_SET = 0;
/** `lseek`: from the end. */
export const SEEK_END = 2;
/** `pwritev2`: what was written is on the medium when the call returns. */
export const RWF_DSYNC = 0x2;
/** `fallocate`: the file's size stays. */
export const FALLOC_FL_KEEP_SIZE = 0x1;
/** `fallocate`: give the range's blocks back; it reads as zeros. */
export const FALLOC_FL_PUNCH_HOLE = 0x2;
/** `fallocate`: the range reads as zeros, its blocks stay. */
export const FALLOC_FL_ZERO_RANGE = 0x10;

/** Signal: ends a process on the spot. */
export const SIGKILL = 9;
/** `waitpid`: do not wait. */
export const WNOHANG = 1;
/** `posix_spawn`: the child gets a process group of its own. */
export const POSIX_SPAWN_SETPGROUP = 0x2;
/** `prctl`: the signal that this process gets at the end of the thread that has started it. */
export const PR_SET_PDEATHSIG = 1;
