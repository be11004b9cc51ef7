/**
 * A back end on a thread of its own, which does what it is told while the thread of the IOMMU stands still.
 *
 * The first message to it is the path that it listens on; it says `listening`, and `closed` in the end.
 *
 * @module
 */
import { UnixListener } from "../../../../device/host/mod.ts";
import { ScriptedBackEnd } from "./scripted_back_end.ts";

/** The part of a worker's global scope that is used here. */
interface Scope {
  onmessage: (event: MessageEvent<string>) => void;
  postMessage(message: string): void;
}

const scope = globalThis as unknown as Scope;
scope.onmessage = async ({ data: path }) => {
  using listener = UnixListener.listen(path);
  scope.postMessage("listening");
  const backEnd = await ScriptedBackEnd.accept(listener);
  await backEnd.closed;
  scope.postMessage("closed");
};
