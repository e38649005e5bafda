// The tasks that this page knows, each once: lists, the stream and a task's own page write here, and rows read here.
import { signal, type Signal } from "@preact/signals";
import { client, ok, type Schemas } from "./client";

export type TaskState = Schemas["TaskState"];
export type TaskSummary = Schemas["TaskSummary"];
export type Task = Schemas["TaskOut"];
export type Progress = Schemas["ProgressOut"];

export const STATES: readonly TaskState[] = ["RUNNING", "SUBMITTED", "SUBMITTING", "QUEUED", "PENDING_RESOURCES", "SUCCEEDED", "FAILED", "CANCELED"];
export const ENDED: ReadonlySet<TaskState> = new Set<TaskState>(["SUCCEEDED", "FAILED", "CANCELED"]);

const known = new Map<string, Signal<TaskSummary | null>>();
/** What the stream told last of tasks that nobody here has asked for, the oldest first. An admin's page hears of all, for days. */
const passing = new Map<string, TaskSummary>();
const MOST_PASSING = 1000;
const listeners = new Set<(task: TaskSummary) => void>();

export const counts = signal<Schemas["CountsOut"] | null>(null);

/** The newest that is known of a task; null until something is. */
export function taskSignal(taskId: string): Signal<TaskSummary | null> {
  let found = known.get(taskId);
  if (!found) {
    // An answer that was under way meanwhile must not make it older.
    known.set(taskId, (found = signal(passing.get(taskId) ?? null)));
    passing.delete(taskId);
  }
  return found;
}

export function learn(task: TaskSummary): void {
  const holder = taskSignal(task.task_id);
  const before = holder.peek();
  // An answer that was under way while the stream told of something newer.
  if (before && Date.parse(before.updated_at) > Date.parse(task.updated_at)) return;
  // After a change of the task its steps may go back, to those of a checkpoint.
  const isSame = before?.updated_at === task.updated_at;
  if (before && !isSame) told.delete(task.task_id);
  const said = told.get(task.task_id);
  const isLate = said && performance.now() - said.at < LATE_MS && said.progress.step > (task.progress?.step ?? -1);
  // Of a task that has ended the stream tells no steps.
  const progress = isLate ? said.progress : (task.progress ?? (isSame ? (before?.progress ?? null) : null));
  holder.value = { ...task, progress };
  for (const listener of listeners) listener(task);
}

/** What the stream told last of the steps of tasks, which it does once, and when. An answer that was read before it may come after it. */
const told = new Map<string, { progress: Progress; at: number }>();
/** Milliseconds. */
const LATE_MS = 20_000;

export function learnProgress(taskId: string, progress: Progress | null): void {
  const holder = known.get(taskId);
  const before = holder?.peek();
  if (holder && before) holder.value = { ...before, progress };
  if (holder && progress) told.set(taskId, { progress, at: performance.now() });
}

/** As `learn`, of any task of the pool. */
export function hear(task: TaskSummary): void {
  if (known.has(task.task_id)) return learn(task);
  passing.delete(task.task_id);
  passing.set(task.task_id, task);
  if (passing.size > MOST_PASSING) passing.delete(passing.keys().next().value as string);
  for (const listener of listeners) listener(task);
}

/** Be told of each change of any task. Call what it returns to end that. */
export function onTask(listener: (task: TaskSummary) => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export interface Filter {
  readonly state: readonly string[];
  readonly workload: readonly string[];
  readonly since: string | null;
  readonly until: string | null;
  readonly userId: string | null;
  /** The end of an id. */
  readonly suffix: string | null;
}

export const PAGE = 100;

export async function listTasks(filter: Filter, cursor: string | null, signal?: AbortSignal): Promise<Schemas["TasksOut"]> {
  const query = { ...asQuery(filter), limit: PAGE, ...(cursor ? { cursor } : {}) };
  const page = await ok(client.GET("/api/v2/tasks", { params: { query }, ...(signal ? { signal } : {}) }));
  page.tasks.forEach(learn);
  return page;
}

export async function countTasks(filter: Filter, signal?: AbortSignal): Promise<Schemas["CountsOut"]> {
  return ok(client.GET("/api/v2/tasks:counts", { params: { query: asQuery(filter) }, ...(signal ? { signal } : {}) }));
}

function asQuery(filter: Filter) {
  return {
    ...(filter.state.length ? { state: [...filter.state] } : {}),
    ...(filter.workload.length ? { workload: [...filter.workload] } : {}),
    ...(filter.since ? { since: filter.since } : {}),
    ...(filter.until ? { until: filter.until } : {}),
    ...(filter.userId ? { user_id: filter.userId } : {}),
    ...(filter.suffix ? { id_suffix: filter.suffix } : {}),
  };
}

/** Whether a list of this filter has the task, but for `since`: an age is counted from when the list was asked for. */
export function matches(filter: Filter, task: TaskSummary): boolean {
  return (
    (!filter.state.length || filter.state.includes(task.state)) &&
    (!filter.workload.length || filter.workload.includes(task.workload)) &&
    (!filter.userId || filter.userId === task.user_id) &&
    (!filter.suffix || task.task_id.endsWith(filter.suffix)) &&
    !filter.until
  );
}
