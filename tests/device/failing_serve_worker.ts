/**
 * An IOMMU, a generator of random numbers, a disk and a proxied back end, served on a thread whose system calls fail when
 * the test says so.
 *
 * The first message to it is a {@linkcode ServeOrder}; it says `ready`. After `stop` it says what it logged, or with what
 * it failed.
 *
 * @module
 */
import {
  BlockDevice,
  BlockDisk,
  EndpointProxy,
  EndpointService,
  EntropyDevice,
  HostRandom,
} from "../../device/endpoint/mod.ts";
import { ImageFile, UnixListener } from "../../device/host/mod.ts";
import { IommuDevice } from "../../device/iommu/iommu_device.ts";
import { Log } from "../../device/log.ts";
import { DeviceServer } from "../../device/serving/device_server.ts";
import { failAsPlanned, FailurePlan } from "./host/failing_libc.ts";
import { DEFAULT_OPTIONS } from "./in_process_guest.ts";

/** What the worker is to do. */
export interface ServeOrder {
  /** The plan of what fails. */
  readonly plan: Int32Array<SharedArrayBuffer>;
  /** Where its sockets go: `iommu`, `rng`, `blk`, `proxy`; a back end is looked for at `back`, an image is `image`. */
  readonly folder: string;
  /** Endpoints of the devices. */
  readonly endpoints: { readonly rng: number; readonly blk: number; readonly proxy: number };
}

/** The part of a worker's global scope that is used here. */
interface Scope {
  onmessage: (event: MessageEvent<ServeOrder | "stop">) => void;
  postMessage(message: unknown): void;
}

const scope = globalThis as unknown as Scope;
scope.onmessage = ({ data }) => {
  if (data === "stop") return;
  serve(data).catch((error) => scope.postMessage({ error: `${error?.stack ?? error}` }));
};

async function serve({ plan, folder, endpoints }: ServeOrder): Promise<void> {
  const lines: string[] = [];
  const log = new Log("info", (line) => lines.push(line));
  const iommu = new IommuDevice(DEFAULT_OPTIONS);
  const disk = new BlockDisk(ImageFile.open(`${folder}/image`, true), false, "disk");
  const services = [
    new EndpointService({
      iommu,
      endpoint: endpoints.rng,
      device: new EntropyDevice(new HostRandom()),
      listener: UnixListener.listen(`${folder}/rng`),
      log,
    }),
    new EndpointService({
      iommu,
      endpoint: endpoints.blk,
      device: new BlockDevice(disk, 1),
      listener: UnixListener.listen(`${folder}/blk`),
      log,
    }),
  ];
  const proxy = new EndpointProxy({
    iommu,
    endpoint: endpoints.proxy,
    listener: UnixListener.listen(`${folder}/proxy`),
    backEnd: `${folder}/back`,
    writeOnly: "widen",
    patience: 5000,
    log,
  });
  const server = new DeviceServer(iommu, log, 100, [...services, proxy]);
  for (const { device } of services) device.onProgress = () => server.wake();
  scope.onmessage = () => server.stop();
  const listener = UnixListener.listen(`${folder}/iommu`);
  using _failing = failAsPlanned(new FailurePlan(plan));
  scope.postMessage("ready");
  await server.run(listener);
  iommu.close();
  scope.postMessage({ lines, failures: server.failures });
}
