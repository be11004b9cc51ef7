/**
 * The host: libc through FFI. Sockets that carry descriptors, shared memory, events and polling.
 *
 * ```ts
 * import { createMemoryFile, mapMemoryFile, PollSet, UnixStream } from "@viommu/viommu/host";
 *
 * // Another process would have the other end.
 * const [one, other] = UnixStream.pair();
 * using file = createMemoryFile("example", 4096);
 * one.send(Uint8Array.of(42), 0, 1, [file.number]);
 *
 * using poll = new PollSet();
 * const slot = poll.add(other.descriptor.number);
 * poll.poll(0);
 * poll.ready(slot) !== 0; // true
 * other.receive(new Uint8Array(16), 0, 16); // 1
 * const received = other.received.pop()!;
 * using memory = mapMemoryFile(received, 0, 4096);
 * memory.buffer.byteLength; // 4096
 * received.close();
 * one.close();
 * other.close();
 * ```
 *
 * Every descriptor has one owner, an object with a `close`. What a peer does wrong is a value, what the host refuses is
 * thrown as {@linkcode OsError}. Importing opens nothing; the first call needs `--allow-ffi`. It runs on Linux.
 *
 * May import nothing of the project.
 *
 * @module
 */
export { EOPNOTSUPP, POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT } from "./constants.ts";
export { truncations } from "./bus_guard.ts";
export { ChildProcess, dieWithParent, ownCommand, type ProcessEnd } from "./child_process.ts";
export { descriptorsClosed } from "./closing.ts";
export { closeAll, Descriptor, hasDescriptors } from "./descriptor.ts";
export { Event } from "./event.ts";
export { eventLoopTurn } from "./event_loop.ts";
export { descriptorStatus, type FileStatus } from "./file_status.ts";
export { HostPages } from "./host_pages.ts";
export { ImageFile } from "./image_file.ts";
export {
  activatedListener,
  type ActivationEnvironment,
  inheritedSocket,
} from "./inherited_socket.ts";
export { addressIn, ioctl, readAt } from "./ioctl.ts";
export { deviceFolder } from "./device_folder.ts";
export { IoVectors } from "./io_vectors.ts";
export { LineWriter } from "./line_writer.ts";
export { lockLimit } from "./lock_limit.ts";
export { errnoName, OsError } from "./os_error.ts";
export { PACKET_BYTES_MAX, PacketChannel } from "./packet_channel.ts";
export { type PeerFile, peerFiles, takePeerFile } from "./peer_files.ts";
export { PeerProcess } from "./peer_process.ts";
export { PeerThreads } from "./peer_threads.ts";
export { PollSet } from "./poll.ts";
export { isOtherEnd, isPipe, isUnixStream } from "./received_stream.ts";
export {
  hasRobustMutexes,
  holdRobustMutex,
  initRobustMutex,
  MUTEX_BYTES,
  robustMutexReleased,
} from "./robust_mutex.ts";
export { currentProcessor, moveAwayFrom, ProcessorSet } from "./processors.ts";
export { isSameFile } from "./same_file.ts";
export {
  createMemoryFile,
  mapMemoryFile,
  type MappedFile,
  sealMemoryFile,
  SharedMemory,
} from "./shared_memory.ts";
export { createPipe, FAILED, readNow, writeNow } from "./stream_io.ts";
export { groupNumber, type SocketAccess } from "./socket_file.ts";
export { listSystemFolder, readSystemFile, readSystemLink } from "./system_files.ts";
export { UnixListener } from "./unix_listener.ts";
export { CLOSED, connectProblem, UnixStream, WOULD_BLOCK } from "./unix_stream.ts";
