/**
 * Builds the page: one HTML file with script and style in it, which loads nothing.
 *
 * The policy in it permits that script and that style, by their hashes, and requests to where the page comes from.
 */

/** The folder of the page's sources. */
const PAGE = new URL("page/", import.meta.url);
/** The folder of `deno.json`. */
const ROOT = new URL("../../", import.meta.url);

/** Whether the sources of the page are there: not in the bundle, and not in the package. */
export async function hasPageSources(): Promise<boolean> {
  if (PAGE.protocol !== "file:") return false;
  try {
    return (await Deno.stat(new URL("main.tsx", PAGE))).isFile;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/**
 * The page as text.
 *
 * @throws {Error} If a source cannot be bundled, with what `deno bundle` says.
 */
export async function buildPage(): Promise<string> {
  const html = await Deno.readTextFile(new URL("index.html", PAGE));
  const style = await Deno.readTextFile(new URL("style.css", PAGE));
  // The end of a script element is looked for in its text, strings included.
  const script = (await bundledScript()).replaceAll("</script", "<\\/script");
  const policy = [
    "default-src 'none'",
    `script-src '${await hashOf(script)}'`,
    `style-src '${await hashOf(style)}'`,
    "img-src data:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
  ].join("; ");
  // Functions, for texts with $ in them.
  return html.replace("POLICY", () => policy)
    .replace("<style></style>", () => `<style>${style}</style>`)
    .replace('<script type="module"></script>', () => `<script type="module">${script}</script>`);
}

/** The script for the browser: the model and the page in one file. */
async function bundledScript(): Promise<string> {
  const folder = await Deno.makeTempDir({ prefix: "viommu-page-" });
  try {
    const output = `${folder}/page.js`;
    await bundle(["--platform", "browser", "--minify"], new URL("main.tsx", PAGE), output);
    return await Deno.readTextFile(output);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/**
 * Bundles a program of this repository into one file.
 *
 * @throws {Error} If that fails, with what `deno bundle` says.
 */
export async function bundle(
  options: readonly string[],
  program: URL,
  output: string,
): Promise<void> {
  const fixed = ["bundle", "--quiet", "--frozen", ...options, "--output", output];
  const command = new Deno.Command(Deno.execPath(), {
    args: [...fixed, program.pathname],
    cwd: ROOT.pathname,
    stdout: "null",
    stderr: "piped",
  });
  const { success, stderr } = await command.output();
  if (success) return;
  throw new Error(`Cannot bundle ${program.pathname}: ${new TextDecoder().decode(stderr).trim()}`);
}

/** The hash of a script or style, as a policy names it. */
async function hashOf(text: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return `sha256-${new Uint8Array(digest).toBase64()}`;
}
