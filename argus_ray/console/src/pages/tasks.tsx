// All tasks of the caller (an administrator's: of everybody), newest first. The filter stands in the address.
import { useEffect, useRef, useState } from "preact/hooks";
import { client, ok, words } from "../api/client";
import { useQuery } from "../api/queries";
import { isAdmin } from "../api/session";
import { counts, countTasks, ENDED, type Filter, STATES, type TaskState } from "../api/tasks";
import { count } from "../lib/format";
import { go, href, route, setQuery, withQuery } from "../lib/route";
import { Dialog, Empty, Loading, Trouble } from "../ui/parts";
import { StateShape, wordOf } from "../ui/state";
import { toast } from "../ui/toasts";
import { TaskGrid } from "./tasks/grid";
import { useTaskList } from "./tasks/list";

const KINDS = ["sft", "ppo", "grpo", "export"] as const;
/** What a chip stands for: two states that people see as one. */
const CHIPS: readonly (readonly TaskState[])[] = [["RUNNING"], ["SUBMITTING", "SUBMITTED"], ["QUEUED", "PENDING_RESOURCES"], ["SUCCEEDED"], ["FAILED"], ["CANCELED"]];
const MOST_COMPARED = 8;
const MOST_CANCELED = 500;

function filterOf(query: URLSearchParams): Filter {
  return {
    state: query.getAll("state").filter((each) => (STATES as readonly string[]).includes(each)),
    workload: query.getAll("kind"),
    since: query.get("since"),
    until: query.get("until"),
    userId: query.get("user"),
    suffix: query.get("id"),
  };
}

export function Tasks() {
  const filter = filterOf(route.value.query);
  const list = useTaskList(filter);
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const [asking, setAsking] = useState(false);
  const search = useRef<HTMLInputElement>(null);

  useEffect(() => {
    function key(event: KeyboardEvent): void {
      if (event.key !== "/" || event.ctrlKey || event.metaKey || isTyping(event.target)) return;
      event.preventDefault();
      search.current?.focus();
    }
    addEventListener("keydown", key);
    return () => removeEventListener("keydown", key);
  }, []);

  const ids = [...chosen];
  return (
    <>
      <div class="head">
        <h1 class="grow">Tasks</h1>
        <a class="button primary" href={href("submit")}>Submit a task</a>
      </div>
      <Filters filter={filter} search={search} />
      {list.error ? <Trouble error={list.error} again={list.reload} /> : null}
      {list.rows === null ? (list.error ? null : <div class="card"><Loading lines={8} /></div>) : list.rows.length === 0 ? (
        <div class="card"><Nothing filter={filter} /></div>
      ) : (
        <TaskGrid list={list} chosen={chosen} choose={setChosen} />
      )}
      {ids.length ? (
        <div class="card choice" role="region" aria-label="Chosen tasks">
          <span class="grow">{count(ids.length, "task")} chosen</span>
          <a class="button" aria-disabled={ids.length < 2 || ids.length > MOST_COMPARED} href={ids.length < 2 || ids.length > MOST_COMPARED ? undefined : withQuery(href("compare"), { task: ids })}
            title={ids.length > MOST_COMPARED ? `${MOST_COMPARED} at most` : undefined}>Compare</a>
          <button class="button danger" type="button" onClick={() => setAsking(true)}>Cancel…</button>
          <button class="button quiet" type="button" onClick={() => setChosen(new Set())}>Clear</button>
        </div>
      ) : null}
      {asking ? <CancelMany ids={ids.slice(0, MOST_CANCELED)} close={() => setAsking(false)} done={() => { setAsking(false); setChosen(new Set()); }} /> : null}
    </>
  );
}

function isTyping(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
}

function Filters({ filter, search }: { filter: Filter; search: { current: HTMLInputElement | null } }) {
  const rest = { ...filter, state: [] };
  const isPlain = !filter.workload.length && !filter.since && !filter.until && !filter.userId && !filter.suffix;
  // Without another filter the stream tells them as they change.
  const asked = useQuery({ key: ["counts", rest], ask: (signal) => countTasks(rest, signal), enabled: !isPlain || counts.value === null, every: isPlain ? false : 10_000, keepPrevious: true });
  const known = (isPlain ? counts.value : null) ?? asked.data ?? null;
  const of = (states: readonly TaskState[]): number => states.reduce((sum, state) => sum + (known?.counts[state] ?? 0), 0);
  const [typed, setTyped] = useState(filter.suffix ?? "");

  // What came from here is not written back: it may be typed further already.
  const mine = useRef(filter.suffix);
  useEffect(() => {
    if (filter.suffix === mine.current) return;
    mine.current = filter.suffix;
    setTyped(filter.suffix ?? "");
  }, [filter.suffix]);
  useEffect(() => {
    const timer = setTimeout(() => {
      const end = typed.trim().toLowerCase();
      if (end === (filter.suffix ?? "") || (end !== "" && end.length < 4)) return;
      mine.current = end || null;
      setQuery({ id: end || null });
    }, 200);
    return () => clearTimeout(timer);
  }, [typed]);

  return (
    <div class="filters">
      <div class="chips" role="group" aria-label="States">
        <button class="chip" type="button" aria-pressed={!filter.state.length} onClick={() => setQuery({ state: [] })}>All <b>{known ? known.total.toLocaleString("en") : ""}</b></button>
        {CHIPS.map((states) => {
          const isOn = states.every((state) => filter.state.includes(state));
          const next = isOn ? filter.state.filter((each) => !(states as readonly string[]).includes(each)) : [...filter.state, ...states];
          return (
            <button key={states[0]} class="chip" type="button" aria-pressed={isOn} onClick={() => setQuery({ state: next })}>
              <span class="chip-shape"><StateShape state={states[0] as TaskState} /></span>{wordOf(states[0] as TaskState)} <b>{known ? of(states).toLocaleString("en") : ""}</b>
            </button>
          );
        })}
      </div>
      <div class="filters-more">
        <select class="input" aria-label="Kind" value={filter.workload[0] ?? ""} onChange={(event) => setQuery({ kind: event.currentTarget.value || null })}>
          <option value="">All kinds</option>
          {KINDS.map((kind) => <option key={kind} value={kind}>{kind}</option>)}
        </select>
        <select class="input" aria-label="Accepted" value={filter.since ?? ""} onChange={(event) => setQuery({ since: event.currentTarget.value || null })}>
          <option value="">Any time</option>
          <option value="1h">Last hour</option>
          <option value="24h">Last day</option>
          <option value="7d">Last week</option>
          <option value="4w">Last four weeks</option>
        </select>
        {isAdmin.value ? <UserFilter value={filter.userId} /> : null}
        <input ref={search} class="input mono" type="search" aria-label="End of an id" placeholder="End of an id ( / )" value={typed} onInput={(event) => setTyped(event.currentTarget.value)}
          onKeyDown={(event) => { if (event.key === "Escape") { setTyped(""); event.currentTarget.blur(); } }} />
      </div>
    </div>
  );
}

function UserFilter({ value }: { value: string | null }) {
  const { data } = useQuery({ key: ["users"], ask: (signal) => ok(client.GET("/api/v2/users", { signal })), staleTime: 60_000 });
  const ids = new Set([...(data?.users.map((user) => user.user_id) ?? []), ...(value ? [value] : [])]);
  return (
    <select class="input" aria-label="User" value={value ?? ""} onChange={(event) => setQuery({ user: event.currentTarget.value || null })}>
      <option value="">All users</option>
      {[...ids].sort().map((id) => <option key={id} value={id}>{id}</option>)}
    </select>
  );
}

function Nothing({ filter }: { filter: Filter }) {
  const isFiltered = filter.state.length || filter.workload.length || filter.since || filter.until || filter.userId || filter.suffix;
  return isFiltered ? (
    <Empty><p>No task is like that.</p><p><button class="button" type="button" onClick={() => go(href("tasks"))}>Show all</button></p></Empty>
  ) : (
    <Empty><h2>No tasks yet</h2><p>A task is a TaskSpec: what to train, on which data, on how many GPUs.</p><p><a class="button primary" href={href("submit")}>Submit the first one</a></p></Empty>
  );
}

function CancelMany({ ids, close, done }: { ids: readonly string[]; close: () => void; done: () => void }) {
  const [busy, setBusy] = useState(false);
  const { data, error } = useQuery({
    key: ["cancel", ids],
    ask: (signal) => ok(client.POST("/api/v2/tasks:cancel", { body: { ids: [...ids], dry_run: true }, signal })),
    staleTime: 0,
  });
  const alive = data?.results.filter((each) => each.result === "would_cancel") ?? [];

  async function cancel(): Promise<void> {
    setBusy(true);
    try {
      const answer = await ok(client.POST("/api/v2/tasks:cancel", { body: { ids: alive.map((each) => each.task_id) } }));
      toast(`${count(answer.results.filter((each) => each.result === "canceled").length, "task")} canceled.`);
      done();
    } catch (problem) {
      toast(words(problem), "bad");
      setBusy(false);
    }
  }

  return (
    <Dialog title="Cancel tasks" close={close}>
      {error ? <Trouble error={error} /> : data ? (
        <p>{alive.length ? `${count(alive.length, "task")} of ${ids.length} will be canceled. That is final; checkpoints stay.` : "All of them have ended."}</p>
      ) : <Loading lines={1} />}
      {alive.some((each) => each.state && !ENDED.has(each.state) && each.state === "RUNNING") ? <p class="muted">{count(alive.filter((each) => each.state === "RUNNING").length, "of them runs", "of them run")} now.</p> : null}
      <footer>
        <button class="button" type="button" onClick={close}>Leave them</button>
        <button class="button danger" type="button" disabled={busy || !alive.length} onClick={() => void cancel()}>Cancel {count(alive.length, "task")}</button>
      </footer>
    </Dialog>
  );
}
