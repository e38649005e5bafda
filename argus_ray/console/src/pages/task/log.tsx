// The log of a task: a window of it, followed, searched, read upwards and jumped in.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { isPassing } from "../../api/client";
import { isNoLog } from "../../api/logs";
import { link } from "../../api/stream";
import { ENDED, type Task } from "../../api/tasks";
import { bytes, count } from "../../lib/format";
import { route, setQuery } from "../../lib/route";
import { Loading, Trouble } from "../../ui/parts";
import { isStopping } from "./data";
import { DownloadButton } from "./download";
import { useFollowing } from "./log/follow";
import { type Look, LogPane, type Pane } from "./log/pane";
import { useSearch } from "./log/search";
import { SearchBar } from "./log/search-bar";
import { LogWindow } from "./log/window";

/** After the end of an attempt its log is looked at once more: the disk of another machine may show it late. */
const LAST_WORDS_MS = 2_000;

export function Log({ task }: { task: Task }) {
  const chosen = Number(route.value.query.get("attempt")) || null;
  const newest = task.attempts.at(-1)?.number ?? null;
  // "The newest" is another log once another attempt begins.
  const log = useMemo(() => new LogWindow(task.task_id, chosen ?? newest), [task.task_id, chosen ?? newest]);
  useEffect(() => {
    // Without an attempt there is no log to ask for.
    if (newest !== null) void log.toEnd();
    return () => log.close();
  }, [log]);
  return <OneLog key={`${chosen ?? newest}`} task={task} log={log} />;
}

function OneLog({ task, log }: { task: Task; log: LogWindow }) {
  const view = log.view.value;
  const error = log.error.value;
  const [follows, setFollows] = useState(true);
  const [unseen, setUnseen] = useState(0);
  const [look, setLook] = useState<Look>({ wrap: false, states: false, raw: false });
  const pane = useRef<Pane>(null);
  const field = useRef<HTMLInputElement>(null);
  const newest = task.attempts.at(-1)?.number ?? null;
  const search = useSearch(log, pane, () => setFollows(false));
  const [hasEnded, setEnded] = useState(false);
  const isLive = !hasEnded && (!ENDED.has(task.state) || isStopping(task)) && (log.attempt === newest || log.attempt === null);
  useFollowing(log, isLive, {
    follows,
    came: (lines) => { if (!follows && lines > 0) setUnseen((before) => before + lines); },
    ended: () => setEnded(true),
  });

  // The head was away, and is back.
  const isLinked = link.value === "live";
  useEffect(() => {
    if (!isLinked || !isPassing(log.error.peek())) return;
    void (log.view.peek() ? log.grown(null, follows) : log.toEnd());
  }, [isLinked]);

  // Its last words may come between the last event and the end, or while the tab was hidden, and nobody tells of them then.
  const wasLive = useRef(isLive);
  useEffect(() => {
    const hasJustEnded = wasLive.current && !isLive;
    wasLive.current = isLive;
    if (!hasJustEnded) return;
    void log.grown(null, follows);
    const later = setTimeout(() => void log.grown(null, follows), LAST_WORDS_MS);
    return () => clearTimeout(later);
  }, [isLive]);

  function toEnd(): void {
    setFollows(true);
    setUnseen(0);
    search.clear();
    const now = log.view.peek();
    if (!now || now.to < now.size) void log.toEnd();
    else void log.grown(null, true);
    pane.current?.focus();
  }

  function toBegin(): void {
    setFollows(false);
    void log.toByte(0).then(() => pane.current?.show(0));
  }

  function keys(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act: Record<string, () => void> = { g: toBegin, Home: toBegin, G: toEnd, End: toEnd, n: () => search.next(false), N: () => search.next(true) };
    const found = act[event.key];
    if (!found) return;
    event.preventDefault();
    found();
  }

  useEffect(() => {
    function key(event: KeyboardEvent): void {
      const target = event.target as HTMLElement;
      if (event.key !== "/" || event.ctrlKey || event.metaKey || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName)) return;
      event.preventDefault();
      field.current?.focus();
    }
    addEventListener("keydown", key);
    return () => removeEventListener("keydown", key);
  }, []);
  // The page opens with the log under the keys, unless somebody is elsewhere already.
  const isThere = view !== null;
  useEffect(() => {
    if (isThere && document.activeElement === document.body) pane.current?.focus();
  }, [isThere]);

  const isEmpty = newest === null || (view !== null && view.size === 0 && view.lines.length === 0);
  const isGone = isNoLog(error);
  return (
    <section class="card log" aria-label="The log and its tools">
      <div class="log-tools">
        <SearchBar search={search} field={field} back={() => pane.current?.focus()} />
        <div class="buttons">
          <Attempts task={task} now={log.attempt} />
          <Toggle label="Wrap" is={look.wrap} set={(wrap) => setLook({ ...look, wrap })} title="Break long lines" />
          <Toggle label="All states" is={look.states} set={(states) => setLook({ ...look, states })} title="Every state of progress bars, not only the last one" />
          <Toggle label="Raw" is={look.raw} set={(raw) => setLook({ ...look, raw })} title="Escape sequences as they stand there, without colours" />
          {view && !isEmpty && log.attempt !== null ? <DownloadButton task={task} what={{ log: log.attempt }} size={view.size} /> : null}
        </div>
      </div>
      {error && !isGone && !(view && isPassing(error)) ? <Trouble error={error} again={() => void log.toEnd()} /> : null}
      {isGone ? <p class="empty">{error.problem.code === "files_gone" ? "The log is gone: the files of this task are in the trash, or deleted." : "There is no log of this attempt."}</p>
        : isEmpty ? <p class="empty">{emptyWords(task)}</p>
        : view === null ? (error ? null : <Loading lines={12} />) : (
          <div class="log-body">
            <LogPane log={log} view={view} look={look} mark={search.mark} follows={follows} setFollows={(is) => { setFollows(is); if (is) setUnseen(0); }} keys={keys} pane={pane} />
            {follows ? null : <button class="button small log-new" type="button" onClick={toEnd}>{unseen ? `${count(unseen, "new line")} ↓` : "To the end ↓"}</button>}
          </div>
        )}
      {view && !isEmpty && !isGone ? <Foot log={log} follows={follows && isLive} toBegin={toBegin} toEnd={toEnd} jump={(at) => { setFollows(false); void log.toByte(at).then(() => pane.current?.show(at)); }} /> : null}
    </section>
  );
}

function emptyWords(task: Task): string {
  if (ENDED.has(task.state)) return task.attempts.length ? "This attempt has logged nothing." : "It ended before it began: there is no log.";
  return task.attempts.length ? "There is no log yet: its program has not said anything. It shows here as soon as it does." : "There is no log yet: the task waits. It shows here as soon as it begins.";
}

function Attempts({ task, now }: { task: Task; now: number | null }) {
  if (task.attempts.length < 2) return null;
  const newest = task.attempts.at(-1)?.number;
  return (
    <select class="input log-attempt" aria-label="Attempt" value={String(now ?? newest)} onChange={(event) => setQuery({ attempt: event.currentTarget.value === String(newest) ? null : event.currentTarget.value })}>
      {task.attempts.map((each) => <option key={each.number} value={String(each.number)}>Attempt {each.number}{each.number === newest ? " (newest)" : ""}</option>)}
    </select>
  );
}

function Toggle({ label, is, set, title }: { label: string; is: boolean; set: (is: boolean) => void; title: string }) {
  return <button class="chip" type="button" aria-pressed={is} title={title} onClick={() => set(!is)}>{label}</button>;
}

/** Where the window is in the whole. */
function Foot({ log, follows, toBegin, toEnd, jump }: { log: LogWindow; follows: boolean; toBegin: () => void; toEnd: () => void; jump: (at: number) => void }) {
  const view = log.view.value;
  if (!view) return null;
  const busy = log.busy.value;
  const isWhole = view.from === 0 && view.to >= view.size;
  return (
    <div class="log-foot">
      <button class="button small quiet" type="button" onClick={toBegin} title="To the beginning (g)">⇤ Beginning</button>
      {isWhole ? <span class="grow" /> : (
        <input class="grow" type="range" aria-label="Place in the log" aria-valuetext={`${bytes(view.from)} of ${bytes(view.size)}`} min={0} max={view.size} step={1} value={view.to >= view.size ? view.size : view.from} onChange={(event) => jump(Number(event.currentTarget.value))} />
      )}
      <span class="muted num nowrap" aria-live="polite">{busy && busy !== "after" ? "loading… " : ""}{isWhole ? `${count(view.lines.length, "line")}, ${bytes(view.size)}` : `${bytes(view.from)} to ${bytes(view.to)} of ${bytes(view.size)}`}{follows ? ", following" : ""}</span>
      <button class="button small quiet" type="button" onClick={toEnd} title="To the end (G)">End ⇥</button>
    </div>
  );
}
