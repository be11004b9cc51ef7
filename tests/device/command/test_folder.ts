/**
 * A folder of its own for a test.
 *
 * @module
 */

/** Runs a test with a folder, which is removed afterwards. */
export async function withFolder(test: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await test(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** The names of what is in a folder. */
export async function namesIn(folder: string): Promise<readonly string[]> {
  const names = [];
  for await (const { name } of Deno.readDir(folder)) names.push(name);
  return names.sort();
}

/** A user without rights. */
const NOBODY = 65534;

/** Runs something that may not use a folder: root may always, so that runs as another user. */
export async function withoutRights(folder: string, run: () => Promise<void>): Promise<void> {
  const { mode } = await Deno.stat(folder);
  await Deno.chmod(folder, 0o000);
  using libc = setEffectiveUser();
  try {
    libc.change(NOBODY);
    await run();
  } finally {
    libc.change(0);
    await Deno.chmod(folder, mode! & 0o7777);
  }
}

/** Changes the effective user, if this is root. */
function setEffectiveUser(): Disposable & { change(user: number): void } {
  if (Deno.uid() !== 0) return { change: () => {}, [Symbol.dispose]: () => {} };
  const libc = Deno.dlopen("libc.so.6", { seteuid: { parameters: ["u32"], result: "i32" } });
  return {
    change(user) {
      if (libc.symbols.seteuid(user) !== 0) throw new Error(`Cannot become user ${user}`);
    },
    [Symbol.dispose]: () => libc.close(),
  };
}
