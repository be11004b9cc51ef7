/**
 * The requests of recorded guests (`tests/recordings`), on a device made anew for each run and with the cost of
 * reading the recording. `viommu replay FILE --bench` has the requests alone.
 */
import { readerOf } from "../../device/recording/recording_reader.ts";
import { Replay } from "../../device/recording/replay.ts";

const FOLDER = new URL("../../tests/recordings/", import.meta.url);

for (const { name } of Deno.readDirSync(FOLDER)) {
  if (!name.endsWith(".rec")) continue;
  const bytes = Deno.readFileSync(new URL(name, FOLDER));
  Deno.bench({
    name: `replay of ${name}`,
    group: "recordings",
    fn(b) {
      const replay = Replay.begin(readerOf(bytes), { maxTableMemory: 2 ** 30 });
      if (typeof replay === "string") throw new Error(replay);
      b.start();
      while (replay.step());
      b.end();
      replay.close();
    },
  });
}
