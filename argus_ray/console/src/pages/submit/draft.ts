// The one draft of this tab. It lies in sessionStorage from the first letter on, so a reload, a sign-in and a restart of
// the service take nothing of it.
import { effect, signal } from "@preact/signals";
import { me } from "../../api/session";

export interface Draft {
  /** Whose it is: who signs in after another must not see it. */
  readonly owner: string;
  readonly text: string;
  readonly presets: readonly string[];
  /** The Idempotency-Key of its submission: of each change a new one, so that trying again makes no second task. */
  readonly key: string;
  /** Where it came from, for people: `template grpo`, `file a.yaml`. */
  readonly from: string | null;
  /** What stood here before that was put in its place. */
  readonly before: Pick<Draft, "text" | "presets" | "from"> | null;
  /** The task that it was last accepted as. */
  readonly sent: string | null;
}

const KEY = "argus.draft";

/** `crypto.randomUUID` is not there on a plain-http address. */
function newKey(): string {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

const owner = (): string => me.peek()?.user_id ?? me.peek()?.role ?? "";

const empty = (): Draft => ({ owner: owner(), text: "", presets: [], key: newKey(), from: null, before: null, sent: null });

export const draft = signal<Draft>(empty());
/** Whether the browser has kept it; false where its storage is full or forbidden. */
export const isKept = signal(true);

/** Take up what this user has left here. */
export function openDraft(): void {
  if (draft.peek().owner === owner()) return;
  let kept: Draft | null = null;
  try {
    kept = JSON.parse(sessionStorage.getItem(KEY) ?? "null") as Draft | null;
  } catch {
    // Nothing that this page has written.
  }
  draft.value = kept?.owner === owner() ? kept : empty();
}

effect(() => {
  const now = draft.value;
  if (!now.owner) return;
  try {
    sessionStorage.setItem(KEY, JSON.stringify(now));
    isKept.value = true;
  } catch {
    isKept.value = false;
  }
});

export function change(what: Partial<Pick<Draft, "text" | "presets">>): void {
  const now = draft.peek();
  if ((what.text ?? now.text) === now.text && (what.presets ?? now.presets) === now.presets) return;
  draft.value = { ...now, ...what, key: newKey(), sent: null };
}

/** Put something else in its place, which can be undone. */
export function replace(text: string, from: string, presets: readonly string[] = draft.peek().presets): void {
  const now = draft.peek();
  if (now.text === text && now.from === from && now.presets.join() === presets.join()) return;
  const before = now.text.trim() && now.text !== text ? { text: now.text, presets: now.presets, from: now.from } : now.before;
  draft.value = { ...now, text, presets, from, before, key: newKey(), sent: null };
}

export function undo(): void {
  const { before, ...now } = draft.peek();
  if (before) draft.value = { ...now, ...before, before: null, key: newKey(), sent: null };
}

/** It was accepted; the next submission is another task, even of the same text. */
export function markSent(taskId: string): void {
  draft.value = { ...draft.peek(), sent: taskId, key: newKey() };
}
