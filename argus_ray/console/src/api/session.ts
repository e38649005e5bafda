// Who is signed in. The token stays in this tab's sessionStorage: no other tab, and no later one, has it.
import { computed, signal } from "@preact/signals";
import type { components } from "./openapi";

export type Me = components["schemas"]["MeOut"];

const KEY = "argus.token";

export const token = signal<string | null>(sessionStorage.getItem(KEY));
/** Null until the token was found good, and kept while it is asked for anew. */
export const me = signal<Me | null>(null);
/** Why the sign-in shows although there was a token. */
export const refusal = signal<string | null>(null);
export const isAdmin = computed(() => me.value !== null && me.value.role !== "user");

export function signIn(newToken: string, who: Me): void {
  const before = me.peek();
  sessionStorage.setItem(KEY, newToken);
  refusal.value = null;
  // Another user must see nothing of this one: not even what stands in memory.
  if (before && (before.user_id !== who.user_id || before.role !== who.role)) location.reload();
  token.value = newToken;
  me.value = who;
}

/** The page stays as it is behind the sign-in, with all that was typed. */
export function expire(why: string): void {
  sessionStorage.removeItem(KEY);
  refusal.value = why;
  token.value = null;
}

export function signOut(): void {
  sessionStorage.clear();
  location.hash = "";
  location.reload();
}
