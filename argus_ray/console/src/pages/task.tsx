// One task: what it does, why it waits, how it ended; its log, curves, rollouts and files.
import type { FunctionComponent } from "preact";
import { useEffect } from "preact/hooks";
import { Refused } from "../api/client";
import { type Task } from "../api/tasks";
import { count, shortId } from "../lib/format";
import { go, href, route } from "../lib/route";
import { oneLine } from "../lib/safe";
import { Age, Loading, Trouble } from "../ui/parts";
import { StateBadge } from "../ui/state";
import { Curves } from "./task/curves";
import { isWhole, newest, useEnding, useTask } from "./task/data";
import { Events } from "./task/events";
import { Explain } from "./task/explain";
import { Files } from "./task/files";
import { TaskHead } from "./task/head";
import { Log } from "./task/log";
import { Overview } from "./task/overview";
import { Rollouts } from "./task/rollouts";
import { Spec } from "./task/spec";

interface Tab {
  readonly title: string;
  readonly page: FunctionComponent<{ task: Task }>;
  /** An export trains nothing, and an sft task draws no samples. */
  readonly has?: (task: Task) => boolean;
}

const TABS: Readonly<Record<string, Tab>> = {
  "": { title: "Overview", page: Overview },
  log: { title: "Log", page: Log },
  curves: { title: "Curves", page: Curves, has: (task) => task.workload !== "export" },
  rollouts: { title: "Rollouts", page: Rollouts, has: (task) => task.workload === "ppo" || task.workload === "grpo" },
  explain: { title: "Explain", page: Explain },
  events: { title: "Events", page: Events },
  spec: { title: "Spec", page: Spec },
  files: { title: "Files", page: Files },
};

export function TaskPage() {
  const [, id = ""] = route.value.path;
  return isWhole(id) ? <OneTask key={id} id={id} /> : <Ending key={id} end={id.toLowerCase()} />;
}

function OneTask({ id }: { id: string }) {
  const [, , name = ""] = route.value.path;
  const { data, error, refetch } = useTask(id);
  const tab = TABS[name];
  const kind = data?.workload ?? "Task";
  useEffect(() => {
    document.title = `${kind} ${shortId(id)}${name && tab ? ` · ${tab.title}` : ""} · Argus`;
  }, [kind, id, name]);
  if (error && !data) return isUnknown(error) ? <Unknown id={id} /> : <Trouble error={error} again={() => void refetch()} />;
  if (!data) return <div class="card task-head"><Loading lines={4} /></div>;
  const task = newest(data);
  const Page = tab?.page;
  return (
    <>
      <TaskHead task={task} tab={name} />
      <nav class="tabs" aria-label="Parts of this task">
        {Object.entries(TABS).filter(([, each]) => each.has?.(task) ?? true).map(([part, each]) => (
          <a key={part} href={part ? href("task", id, part) : href("task", id)} aria-current={part === name ? "page" : undefined}>{each.title}</a>
        ))}
      </nav>
      {Page ? <Page key={name} task={task} /> : <p class="empty">A task has no such part.</p>}
    </>
  );
}

const isUnknown = (error: unknown): boolean => error instanceof Refused && error.problem.status === 404;

function Unknown({ id }: { id: string }) {
  useEffect(() => {
    document.title = "No such task · Argus";
  }, []);
  return (
    <div class="empty">
      <h1>There is no such task</h1>
      <p>None of yours is called <bdi class="mono">{oneLine(id)}</bdi>. It may be another user's, or older than what is kept.</p>
      <p><a class="button" href={href("tasks")}>To the tasks</a></p>
    </div>
  );
}

/** An address with the end of an id only, as people tell it each other. */
function Ending({ end }: { end: string }) {
  const { data, error, refetch } = useEnding(end);
  const only = data?.length === 1 ? data[0] : undefined;
  useEffect(() => {
    if (only) go(href("task", only.task_id, ...route.peek().path.slice(2)), { replace: true });
  }, [only]);
  if (end.length < 4 || (error instanceof Refused && error.problem.status < 500) || data?.length === 0) return <Unknown id={end} />;
  if (error) return <Trouble error={error} again={() => void refetch()} />;
  if (!data || only) return <div class="card"><Loading lines={4} /></div>;
  return (
    <>
      <h1>{count(data.length, "task")} of yours end with <bdi class="mono">{oneLine(end)}</bdi></h1>
      <ul class="card choices">
        {data.map((task) => (
          <li key={task.task_id}>
            <a class="mono" href={href("task", task.task_id, ...route.value.path.slice(2))}>{task.task_id}</a>
            <span class="muted">{task.workload}</span><StateBadge state={task.state} /><Age time={task.created_at} suffix=" ago" />
          </li>
        ))}
      </ul>
    </>
  );
}
