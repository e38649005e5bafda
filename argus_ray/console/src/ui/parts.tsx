// Small things that every page is made of.
import type { ComponentChildren, RefObject } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Refused, words } from "../api/client";
import { age, moment, second } from "../lib/format";

/** How long ago, and when exactly as its title. */
export function Age({ time, suffix = "" }: { time: string | null | undefined; suffix?: string }) {
  void second.value;
  return time ? <time dateTime={time} title={moment(time)} class="num nowrap">{age(time)}{suffix}</time> : null;
}

export function Bar({ part, look, label }: { part: number; look?: string; label: string }) {
  const percent = Math.max(0, Math.min(100, part * 100));
  return (
    <span class="progress" data-look={look} role="progressbar" aria-label={label} aria-valuemin={0} aria-valuemax={100} aria-valuenow={Math.round(percent)}>
      <i style={{ width: `${percent}%` }} />
    </span>
  );
}

/** A line of so many values, from the oldest to the newest. Decoration: the number beside it says the same. */
export function Sparkline({ values }: { values: readonly number[] }) {
  if (values.length < 2) return null;
  const low = Math.min(...values);
  const span = Math.max(...values) - low || 1;
  const at = (value: number, index: number): string =>
    `${((index / (values.length - 1)) * 100).toFixed(1)} ${(20 - ((value - low) / span) * 18 - 1).toFixed(1)}`;
  return (
    <svg class="spark" viewBox="0 0 100 20" preserveAspectRatio="none" aria-hidden="true">
      <path d={`M${values.map(at).join("L")}`} />
    </svg>
  );
}

export function Loading({ lines = 3 }: { lines?: number }) {
  return (
    <div class="in" role="status" aria-label="Loading" style={{ display: "grid", gap: "var(--s3)" }}>
      {Array.from({ length: lines }, (_, index) => <span key={index} class="loading" style={{ width: `${90 - 17 * (index % 4)}%` }} />)}
    </div>
  );
}

/** What went wrong, each broken rule with its field, and how to try again. */
export function Trouble({ error, again }: { error: unknown; again?: () => void }) {
  const problem = error instanceof Refused ? error.problem : null;
  return (
    <div class="note" data-look="bad" role="alert">
      <p>{words(error)}</p>
      {problem?.errors?.length ? <ul>{problem.errors.map((each) => <li key={each.field + each.rule}><b>{each.field}</b>: {each.rule}</li>)}</ul> : null}
      {error instanceof Refused && error.requestId ? <p class="muted">{error.problem.code}, request {error.requestId}</p> : null}
      {again ? <p><button class="button small" type="button" onClick={again}>Try again</button></p> : null}
    </div>
  );
}

export function Empty({ children }: { children: ComponentChildren }) {
  return <div class="empty">{children}</div>;
}

export function Copy({ text, label = "Copy" }: { text: string; label?: string }) {
  const [done, setDone] = useState(false);
  useEffect(() => {
    if (!done) return;
    const timer = setTimeout(() => setDone(false), 1500);
    return () => clearTimeout(timer);
  }, [done]);
  return (
    <button class="button small quiet" type="button" onClick={() => void copy(text).then(setDone)}>
      <span aria-live="polite">{done ? "Copied" : label}</span>
    </button>
  );
}

/** The clipboard's own way needs https or this machine; without it the text goes by a selection. */
async function copy(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    // What is not in the uppermost window is inert. That is the last one: only the sign-in opens over another.
    ([...document.querySelectorAll("dialog[open]")].at(-1) ?? document.body).append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

/** For a `<dialog>`, and for its `onClose`: it is modal while it is there, and gives the focus back at its end. */
export function useModal(close: () => void): [RefObject<HTMLDialogElement>, () => void] {
  const element = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const before = document.activeElement;
    element.current?.showModal();
    return () => {
      if (before instanceof HTMLElement) before.focus();
    };
  }, []);
  // A browser heeds `preventDefault` once; whoever must not be closed is shown again.
  function closed(): void {
    close();
    setTimeout(() => {
      if (element.current?.isConnected && !element.current.open) element.current.showModal();
    });
  }
  return [element, closed];
}

/** A modal window. `close` is called for Escape, too. */
export function Dialog({ title, close, children }: { title: string; close: () => void; children: ComponentChildren }) {
  const [element, closed] = useModal(close);
  return (
    <dialog ref={element} aria-label={title} onCancel={(event) => { event.preventDefault(); close(); }} onClose={closed}>
      <div class="in">
        <h2>{title}</h2>
        {children}
      </div>
    </dialog>
  );
}
