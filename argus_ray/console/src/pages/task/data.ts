// One task as its page holds it: its whole document, asked again when the stream tells of a change, and the rest by tabs.
import { useEffect } from "preact/hooks";
import { client, ok, Refused, type Schemas } from "../../api/client";
import { queries, useQuery } from "../../api/queries";
import { followProgress } from "../../api/stream";
import { ENDED, learn, onTask, type Task, taskSignal } from "../../api/tasks";

const WHOLE = /^argus-[a-z0-9]+(-[a-z0-9]+)*-[a-z]+-\d{8}-\d{6}-[0-9a-f]{4}$/;
/** Milliseconds between two looks at why a task waits: what others do is told by no event. */
const LOOK_MS = 15_000;
const CANDIDATES = 50;

export const isWhole = (id: string): boolean => WHOLE.test(id);

/** Tasks whose ids end so. */
export function useEnding(suffix: string) {
  return useQuery({
    key: ["ending", suffix],
    ask: async (signal) => {
      const query = { id_suffix: suffix, limit: CANDIDATES };
      return (await ok(client.GET("/api/v2/tasks", { params: { query }, signal }))).tasks;
    },
    enabled: suffix.length >= 4,
  });
}

export function useTask(taskId: string) {
  const asked = useQuery({ key: ["task", taskId], ask: (signal) => getTask(taskId, signal) });
  const state = taskSignal(taskId).value?.state ?? asked.data?.state;
  useEffect(() => {
    const stop = onTask((task) => {
      if (task.resubmitted_from === taskId) void queries.invalidateQueries({ queryKey: ["successors", taskId] });
      // What this page has asked for itself comes by here, too.
      if (task.task_id !== taskId || own.has(task)) return;
      const known = queries.getQueryData<Task>(["task", taskId]);
      // The end of a canceled attempt changes nothing of its task.
      if (known && !isStopping(known) && Date.parse(known.updated_at) >= Date.parse(task.updated_at)) return;
      for (const what of ["task", "explain", "events", "checkpoints"]) void queries.invalidateQueries({ queryKey: [what, taskId] });
    });
    return stop;
  }, [taskId]);
  const isAlive = state !== undefined && !ENDED.has(state);
  useEffect(() => (isAlive ? followProgress([taskId]) : undefined), [taskId, isAlive]);
  return asked;
}

/** Canceled, and what runs has still to end. */
export const isStopping = (task: Task): boolean => ENDED.has(task.state) && task.attempts.some((each) => each.state !== "ENDED");

const own = new WeakSet<object>();

async function getTask(taskId: string, signal: AbortSignal): Promise<Task> {
  const task = await ok(client.GET("/api/v2/tasks/{task_id}", { params: { path: { task_id: taskId } }, signal }));
  own.add(task);
  learn(task);
  return task;
}

/** The document with what the stream has told since. */
export function newest(task: Task): Task {
  const told = taskSignal(task.task_id).value;
  return told ? { ...task, ...told } : task;
}

export function useExplain(task: Task, enabled = true) {
  return useQuery({
    key: ["explain", task.task_id],
    ask: (signal) => ok(client.GET("/api/v2/tasks/{task_id}/explain", { params: { path: { task_id: task.task_id } }, signal })),
    every: ENDED.has(task.state) ? false : LOOK_MS,
    enabled,
  });
}

export interface Checkpoint {
  readonly step: number;
  readonly attempt: number;
}

/** Attempts that are looked at, the newest first. */
const ATTEMPTS = 8;

/** Folders of checkpoints that stand in the job roots, the newest first. Whether each is complete only the service knows. */
export function useCheckpoints(task: Task, enabled: boolean) {
  return useQuery({
    key: ["checkpoints", task.task_id],
    ask: async (signal) => {
      const found: Checkpoint[] = [];
      for (const { number } of task.attempts.slice(-ATTEMPTS).reverse()) found.push(...(await checkpointsOf(task.task_id, number, signal)));
      return found;
    },
    enabled,
  });
}

const NO_FILES: ReadonlySet<string> = new Set(["file_not_found", "files_gone"]);

async function checkpointsOf(taskId: string, attempt: number, signal: AbortSignal): Promise<Checkpoint[]> {
  const found = await ok(client.GET("/api/v2/tasks/{task_id}/files", {
    params: { path: { task_id: taskId }, query: { path: "checkpoints", attempt: String(attempt), limit: 500 } },
    signal,
  })).catch((error: unknown) => {
    // Only this says that there are none: of a disk that does not answer nobody knows.
    if (error instanceof Refused && NO_FILES.has(error.problem.code)) return { entries: [] };
    throw error;
  });
  return found.entries
    .map((entry: Schemas["EntryOut"]) => /^global_step_(\d+)$/.exec(entry.kind === "folder" ? entry.name : "")?.[1])
    .filter((step) => step !== undefined)
    .map((step) => ({ step: Number(step), attempt }))
    .sort((one, other) => other.step - one.step);
}

/** Tasks that were made again from this one: the API tells of them by `resubmitted_from` alone, so the newest of the same
 * kind since it ended are looked through. */
export function useSuccessors(task: Task) {
  return useQuery({
    key: ["successors", task.task_id],
    ask: async (signal) => {
      const query = { since: task.ended_at ?? task.created_at, workload: [task.workload as "sft"], limit: 200 };
      const page = await ok(client.GET("/api/v2/tasks", { params: { query }, signal }));
      return page.tasks.filter((each) => each.resubmitted_from === task.task_id);
    },
    enabled: ENDED.has(task.state) && task.workload !== "export",
    every: 30_000,
  });
}
