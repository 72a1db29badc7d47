/** The store that is taken where none is named, in the user's cache. */
import { homedir } from "node:os";
import { join } from "node:path";

/** `$XDG_CACHE_HOME/polyhead/store`, or `.cache/polyhead/store` in the home folder. */
export function defaultStoreFolder(environment: NodeJS.ProcessEnv = process.env): string {
  return join(cacheFolder(environment), "store");
}

function cacheFolder({ XDG_CACHE_HOME }: NodeJS.ProcessEnv): string {
  return join(XDG_CACHE_HOME || join(homedir(), ".cache"), "polyhead");
}
