/**
 * What the environment asks of the tests. Some run without permission to read it: then nothing is asked.
 *
 * @module
 */

/** A variable of the environment, where reading it is allowed. */
export function setting(name: string): string | undefined {
  const { state } = Deno.permissions.querySync({ name: "env", variable: name });
  return state === "granted" ? Deno.env.get(name) : undefined;
}

/** Whether this is the long mode, `VIOMMU_TEST=full`. */
export const isLong = setting("VIOMMU_TEST") === "full";
