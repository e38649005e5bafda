// Where the page is: all of it stands behind the `#`, so no server and no proxy logs an id. Written here, since
// wouter's hash routes keep the query in the part of the address that servers see.
import { computed, signal } from "@preact/signals";

export type Query = Record<string, string | number | readonly string[] | null | undefined>;

const hash = signal(location.hash);
addEventListener("hashchange", () => (hash.value = location.hash));

/** The parts of the path, decoded, and the query. */
export const route = computed(() => parse(hash.value));

export interface Route {
  readonly path: readonly string[];
  readonly query: URLSearchParams;
}

export function parse(text: string): Route {
  const [path = "", query = ""] = text.replace(/^#?\/?/, "").split(/\?(.*)/s, 2);
  return { path: path.split("/").filter(Boolean).map(decoded), query: new URLSearchParams(query) };
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** An address for a link: `href("task", id, "log")`. */
export function href(...parts: readonly string[]): string {
  return `#/${parts.map(encodeURIComponent).join("/")}`;
}

export function withQuery(address: string, query: Query): string {
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (Array.isArray(value)) value.forEach((each: string) => given.append(name, each));
    else if (value !== null && value !== undefined && value !== "") given.set(name, String(value));
  }
  const text = given.toString();
  return text ? `${address}?${text}` : address;
}

export function go(address: string, { replace = false } = {}): void {
  if (replace) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  hash.value = location.hash;
}

/** Change a part of the query and nothing else; a filter is no step that "back" should stop at. */
export function setQuery(change: Query): void {
  const { path, query } = route.peek();
  const all: Query = {};
  for (const name of new Set(query.keys())) all[name] = query.getAll(name);
  go(withQuery(href(...path), { ...all, ...change }), { replace: true });
}
