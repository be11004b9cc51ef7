import { UnixListener } from "../host/mod.ts";
import { IommuDevice } from "../iommu/iommu_device.ts";
import { Log } from "../log.ts";
import { DeviceServer } from "../serving/device_server.ts";
import type { Command } from "./command.ts";
import { DemoProcess } from "./demo_process.ts";
import { DemoScript } from "./demo_script.ts";
import { parseDeviceOptions } from "./device_options.ts";
import { CommandError } from "./errors.ts";
import { StopSignals } from "./process_events.ts";

/** `demo`: serves the device in this process, drives it from a second one, and shows what happens. */
export const demo: Command = {
  name: "demo",
  summary: "serve the device and drive it from a second process, and show what happens",
  usage: [""],
  description: `Serves a device on a socket in a temporary folder, starts a second process that
    plays VMM and guest over that socket with shared memory, and shows each request,
    its answer, and the page tables that came out. Needs nothing but Deno.`,
  options: [],
  async run(_given, streams) {
    const path = `/tmp/viommu-demo-${Deno.pid}.sock`;
    using stop = new StopSignals();
    const device = new IommuDevice({ ...parseDeviceOptions({}), bypass: false });
    const server = new DeviceServer(device, new Log("warn"), 1000);
    using listener = UnixListener.listen(path);
    const guest = new DemoProcess(path);
    const serving = server.run(listener);
    const stopped = Promise.withResolvers<never>();
    stop.onStop(() => stopped.reject(new CommandError("Cannot finish the demo: it was stopped")));
    const script = new DemoScript(device, guest, streams).run();
    try {
      await Promise.race([script, stopped.promise]);
    } finally {
      await guest.close();
      // A script that was stopped fails with the process that it waits for.
      await Promise.allSettled([script]);
      server.stop();
      await serving;
      device.close();
    }
    await streams.write(
      "Everything is given back: no table page, no pin, no descriptor is left.\n",
    );
    return 0;
  },
};
