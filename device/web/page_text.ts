/**
 * The page as `viommu web` serves it: the one that the bundle of the program has in it, or one that is built of the sources
 * when it is asked for.
 */
import { buildPage, hasPageSources } from "./build_page.ts";

let embedded: string | undefined;

/** Gives the program its page. The bundle calls it before anything else. */
export function embedPage(text: string): void {
  embedded = text;
}

/**
 * The page; undefined if there is neither one in the program nor its sources.
 *
 * @throws {Error} If it cannot be built.
 */
export async function pageText(): Promise<string | undefined> {
  if (embedded !== undefined) return embedded;
  return await hasPageSources() ? await buildPage() : undefined;
}
