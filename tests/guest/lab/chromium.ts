/**
 * Prepares a browser without a window, for the tests of the page.
 *
 * @module
 */
import { debianArch, hostArch } from "./arch.ts";
import { cachedItem, exists, say } from "./cache.ts";
import { machineRelease, megabytes, openPackages } from "./packages.ts";
import { librariesOf } from "./unpacked_program.ts";

/** A browser that can be started. */
export interface Chromium {
  /** The program. */
  readonly program: string;
  /** Variables that it needs in its environment. */
  readonly env: Readonly<Record<string, string>>;
}

const PACKAGE = "chromium-headless-shell";

/** Which fonts there are: those beside this file. */
const FONT_SETTINGS = `<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir prefix="relative">root/usr/share/fonts</dir>
  <cachedir prefix="xdg">fontconfig</cachedir>
</fontconfig>
`;

/**
 * The browser in the cache folder, prepared there when it is not there yet.
 *
 * It starts itself again for each of its processes, so it cannot run with another loader as the other programs of the lab
 * do. It comes from the release that this machine runs, and uses the machine's C library.
 */
export async function findChromium(): Promise<Chromium> {
  const host = debianArch(hostArch());
  const release = await machineRelease();
  const folder = await cachedItem(`${PACKAGE}-${release}-${host}-1`, async (folder) => {
    const packages = await openPackages(release, host, false);
    const all = await packages.closure([PACKAGE, "fonts-dejavu-core"]);
    const needed = all.filter(({ name }) => name !== "libc6");
    say(
      `fetching ${PACKAGE} and its libraries, ${needed.length} packages, ${megabytes(needed)} MB`,
    );
    await packages.unpack(needed, folder);
    await Deno.writeTextFile(`${folder}/fonts.conf`, FONT_SETTINGS);
  });
  const root = `${folder}/root`;
  const program = `${root}/usr/lib/chromium/chromium-headless-shell`;
  if (!await exists(program)) throw new Error(`Cannot find the browser: ${program} is not there`);
  const libraries = librariesOf(root);
  return {
    program,
    env: {
      LD_LIBRARY_PATH: `${libraries}:${libraries}/pulseaudio`,
      FONTCONFIG_FILE: `${folder}/fonts.conf`,
    },
  };
}
