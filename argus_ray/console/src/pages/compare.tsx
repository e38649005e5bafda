// Up to eight tasks over each other: their curves, and what differs in what they were told.
import { useEffect } from "preact/hooks";
import { parse } from "yaml";
import { client, ok } from "../api/client";
import { useCurves } from "../api/curves";
import { useQuery } from "../api/queries";
import { followProgress } from "../api/stream";
import { learn, type Task } from "../api/tasks";
import { duration, gang, number, shortId } from "../lib/format";
import { href, route, setQuery } from "../lib/route";
import { Empty, Loading, Trouble } from "../ui/parts";
import { StateBadge } from "../ui/state";
import { CurveBoard } from "./curves/board";

const MOST = 8;

interface Compared {
  readonly task: Task;
  readonly spec: Readonly<Record<string, unknown>>;
}

export function Compare() {
  const { query } = route.value;
  const ids = [...new Set(query.getAll("task"))].slice(0, MOST);
  const names = query.getAll("name");
  const { data, error, refetch } = useQuery({ key: ["compared", ids], ask: (signal) => Promise.all(ids.map((id) => ask(id, signal))), enabled: ids.length > 0, every: 15_000, keepPrevious: true });
  const curves = useCurves(ids, names);
  useEffect(() => followProgress(ids), [ids.join()]);
  if (!ids.length) return <div class="card"><Empty><h1>Compare</h1><p>Choose two to {MOST} tasks in the <a href={href("tasks")}>list</a>, then “Compare”.</p></Empty></div>;
  const runs = ids.map((id, index) => ({ id, label: `${shortId(id)}`, colour: index + 1 }));
  return (
    <>
      <h1>Compare {ids.length} tasks</h1>
      {error ? <Trouble error={error} again={() => void refetch()} /> : null}
      {data ? <Differences all={data} drop={(id) => setQuery({ task: ids.filter((each) => each !== id) })} /> : error ? null : <div class="card"><Loading lines={4} /></div>}
      {curves.error ? <Trouble error={curves.error} /> : null}
      {[...(curves.tasks?.entries() ?? [])].map(([id, { problem }]) => problem ? <p key={id} class="note" data-look="wait" role="alert">{shortId(id)}: {problem.detail}</p> : null)}
      {curves.tasks ? <CurveBoard runs={runs} curves={curves.tasks} names={names} setNames={(next) => setQuery({ name: next })} /> : <div class="card"><Loading lines={6} /></div>}
    </>
  );
}

async function ask(id: string, signal: AbortSignal): Promise<Compared> {
  const path = { task_id: id };
  const [task, text] = await Promise.all([
    ok(client.GET("/api/v2/tasks/{task_id}", { params: { path }, signal })),
    ok(client.GET("/api/v2/tasks/{task_id}/spec", { params: { path }, parseAs: "text", signal })),
  ]);
  learn(task);
  return { task, spec: (parse(String(text)) ?? {}) as Record<string, unknown> };
}

/** Rows that are the same for all are left out: they are what nobody looks for. */
function Differences({ all, drop }: { all: readonly Compared[]; drop: (id: string) => void }) {
  const keys = [...new Set(all.flatMap((each) => Object.keys(each.spec)))];
  const settings = [...new Set(all.flatMap((each) => each.task.settings?.map((setting) => setting.key) ?? []))].sort();
  const rows: [string, string[]][] = [
    ...keys.map((key): [string, string[]] => [key, all.map((each) => shown(each.spec[key]))]),
    ...settings.map((key): [string, string[]] => [key, all.map((each) => shown(each.task.settings?.find((setting) => setting.key === key)?.value))]),
  ];
  const differing = rows.filter(([, values]) => new Set(values).size > 1);
  return (
    <div class="card scroll-x">
      <table class="table compare">
        <thead>
          <tr>
            <th><span class="sr-only">What</span></th>
            {all.map(({ task }, index) => (
              <th key={task.task_id} scope="col"><span class="compare-head"><i class={`swatch c${index + 1}`} /><a class="mono" href={href("task", task.task_id)}>{shortId(task.task_id)}</a>
                <button class="button quiet small" type="button" aria-label={`Leave ${shortId(task.task_id)} out`} onClick={() => drop(task.task_id)}>×</button></span></th>
            ))}
          </tr>
        </thead>
        <tbody>
          <Line name="state" cells={all.map(({ task }) => <StateBadge key={task.task_id} state={task.state} />)} />
          <Line name="kind, GPUs" cells={all.map(({ task }) => `${task.workload} ${gang(task.gang)}`)} />
          <Line name="steps" cells={all.map(({ task }) => (task.progress ? `${number(task.progress.step)}${task.progress.total_steps ? `/${number(task.progress.total_steps)}` : ""}` : ""))} />
          <Line name="ran" cells={all.map(({ task }) => (task.started_at ? duration((Date.parse(task.ended_at ?? new Date().toISOString()) - Date.parse(task.started_at)) / 1000) : ""))} />
          {differing.map(([key, values]) => <Line key={key} name={key} cells={values.map((value, index) => <code key={index}>{value}</code>)} isCode />)}
        </tbody>
      </table>
      {differing.length ? null : <p class="in muted">They have the same TaskSpec and the same settings.</p>}
    </div>
  );
}

function Line({ name, cells, isCode = false }: { name: string; cells: readonly preact.ComponentChildren[]; isCode?: boolean }) {
  return <tr><th scope="row">{isCode ? <code>{name}</code> : name}</th>{cells.map((cell, index) => <td key={index}>{cell}</td>)}</tr>;
}

function shown(value: unknown): string {
  return value === undefined || value === null ? "–" : typeof value === "string" ? value : JSON.stringify(value);
}
