/**
 * Downloads and unpacks Debian packages without installing them, with apt settings of the lab's own.
 *
 * The machine's mirror, its keys and its proxy settings are used, its package state is neither read nor
 * written. Packages are downloaded (apt checks signatures and hashes) and unpacked with `dpkg -x`.
 *
 * @module
 */
import type { DebianArch } from "./arch.ts";
import { cacheFolder, exists, say } from "./cache.ts";
import { run, runText } from "./process.ts";

/** One package version as apt would download it. */
export interface Package {
  readonly name: string;
  readonly version: string;
  /** Bytes to download. */
  readonly size: number;
}

/** The Debian release that lab packages come from where the machine's own is too old. */
export const LAB_RELEASE = "trixie";

/** Seconds for which package lists are taken as fresh. */
const LISTS_FRESH = 3600;

/** Packages of one release (and its backports) for one processor. Make it with {@linkcode openPackages}. */
export class Packages {
  readonly #options: readonly string[];
  readonly #target: readonly string[];

  constructor(options: readonly string[], target: readonly string[]) {
    this.#options = options;
    this.#target = target;
  }

  /** What installing `names` on an empty machine would download, everything they depend on included. */
  async closure(names: readonly string[]): Promise<readonly Package[]> {
    const text = await runText([
      "apt-get",
      ...this.#options,
      "-qq",
      "--print-uris",
      "--no-install-recommends",
      ...this.#target,
      "install",
      ...names,
    ]);
    return parseUris(text);
  }

  /** Downloads the packages into `folder/debs` and unpacks them into `folder/root`; removes the downloads. */
  async unpack(packages: readonly Package[], folder: string): Promise<void> {
    const debs = `${folder}/debs`;
    const root = `${folder}/root`;
    await Deno.mkdir(debs);
    await Deno.mkdir(root, { recursive: true });
    const wanted = packages.map((one) => `${one.name}=${one.version}`);
    await run(["apt-get", ...this.#options, "-qq", "download", ...wanted], { cwd: debs });
    for await (const file of Deno.readDir(debs)) {
      await run(["dpkg", "-x", `${debs}/${file.name}`, root]);
    }
    await Deno.remove(debs, { recursive: true });
    const list = packages.map((one) => `${one.name} ${one.version}\n`).join("");
    await Deno.writeTextFile(`${folder}/packages.txt`, list);
  }
}

/**
 * Opens the package lists of a release, fetching them when they are older than an hour.
 *
 * `release` is a Debian code name; `backports` adds and prefers its backports. To be called while holding the
 * cache's lock (that is, from a `cachedItem` recipe). Throws where this machine is not Debian's.
 */
export async function openPackages(
  release: string,
  arch: DebianArch,
  backports: boolean,
): Promise<Packages> {
  const suite = backports ? `${release}-backports` : release;
  const folder = `${cacheFolder()}/apt-${suite}-${arch}`;
  await Deno.mkdir(`${folder}/state/lists/partial`, { recursive: true });
  await Deno.mkdir(`${folder}/cache/archives/partial`, { recursive: true });
  const mirror = await machineMirror();
  const suites = backports ? [release, `${release}-backports`] : [release];
  const sources = suites.map((suite) => `deb ${mirror.options}${mirror.uri} ${suite} main\n`);
  await Deno.writeTextFile(`${folder}/sources.list`, sources.join(""));
  await Deno.writeTextFile(`${folder}/status`, "");
  const settings: Readonly<Record<string, string>> = {
    "Dir::State": `${folder}/state`,
    "Dir::State::status": `${folder}/status`,
    "Dir::Cache": `${folder}/cache`,
    "Dir::Etc::SourceList": `${folder}/sources.list`,
    "Dir::Etc::SourceParts": "/dev/null",
    "Dir::Etc::Preferences": "/dev/null",
    "Dir::Etc::PreferencesParts": "/dev/null",
    "APT::Architecture": arch,
    "APT::Architectures": arch,
    "APT::Sandbox::User": "root",
    "APT::Update::Error-Mode": "any",
    "Acquire::Languages": "none",
    "Acquire::Retries": "3",
  };
  const configuration = `${folder}/apt.conf`;
  await Deno.writeTextFile(
    configuration,
    // The machine's hooks after an update are about its own lists.
    "#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n" +
      Object.entries(settings).map(([name, value]) => `${name} "${value}";\n`).join(""),
  );
  const options = ["-c", configuration];
  const stamp = `${folder}/fetched`;
  if (!await fresh(stamp, sources.join(""))) {
    say(`fetching package lists of ${suites.join(" and ")} (${arch}) from ${mirror.uri}`);
    await run(["apt-get", ...options, "-qq", "update"]);
    await Deno.writeTextFile(stamp, sources.join(""));
  }
  return new Packages(options, backports ? ["-t", `${release}-backports`] : []);
}

/** The code name of the Debian release this machine runs. Throws where it runs something else. */
export async function machineRelease(): Promise<string> {
  const text = await exists("/etc/os-release") ? await Deno.readTextFile("/etc/os-release") : "";
  const fields = new Map(
    text.split("\n").map((line) => {
      const at = line.indexOf("=");
      return [line.slice(0, at), line.slice(at + 1).replaceAll('"', "")];
    }),
  );
  const release = fields.get("VERSION_CODENAME");
  if (fields.get("ID") !== "debian" || release === undefined) {
    const name = fields.get("PRETTY_NAME") ?? "an unknown system";
    throw new Error(`Cannot use Debian packages: this machine runs ${name}`);
  }
  return release;
}

interface Mirror {
  readonly uri: string;
  /** The text between `deb` and the address in a sources list, with a space at its end, or empty. */
  readonly options: string;
}

async function machineMirror(): Promise<Mirror> {
  const release = await machineRelease();
  const text = await runText([
    "apt-get",
    "indextargets",
    "--format",
    "$(REPO_URI) $(RELEASE) $(COMPONENT)",
  ]);
  for (const line of text.split("\n")) {
    const [uri, suite, component] = line.split(" ");
    if (component !== "main" || !isSuiteOf(suite, release)) continue;
    const keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
    return { uri, options: await exists(keys) ? `[signed-by=${keys}] ` : "" };
  }
  throw new Error(
    `Cannot use Debian packages: apt on this machine has no source for ${release} main`,
  );
}

/** Sources may name a release by its code name or by its role. */
function isSuiteOf(suite: string, release: string): boolean {
  return suite === release || /^(oldoldstable|oldstable|stable|testing|unstable|sid)$/.test(suite);
}

async function fresh(stamp: string, sources: string): Promise<boolean> {
  if (!await exists(stamp)) return false;
  if (await Deno.readTextFile(stamp) !== sources) return false;
  const written = (await Deno.stat(stamp)).mtime?.getTime() ?? 0;
  return Date.now() - written < LISTS_FRESH * 1000;
}

/** `'address' name_version_arch.deb size hash`, one a line; a colon in the version is `%3a`. */
function parseUris(text: string): readonly Package[] {
  const packages: Package[] = [];
  for (const line of text.split("\n")) {
    const [, file, size] = line.split(" ");
    if (file === undefined || !file.endsWith(".deb")) continue;
    const [name, version] = decodeURIComponent(file).split("_");
    packages.push({ name, version, size: Number(size) });
  }
  return packages;
}

/** Megabytes to download, for progress lines. */
export function megabytes(packages: readonly Package[]): number {
  return Math.ceil(packages.reduce((sum, one) => sum + one.size, 0) / 1e6);
}
