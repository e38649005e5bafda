// The one thing that somebody opens a task for: what it does, why it waits, or how it ended.
import type { Schemas } from "../../api/client";
import type { Task } from "../../api/tasks";
import { duration, gang, number } from "../../lib/format";
import { oneLine } from "../../lib/safe";
import { startWords } from "../../ui/start";

export function sentence(task: Task, why: Schemas["ExplanationOut"] | undefined): string {
  const took = task.started_at && task.ended_at ? ` after ${duration((Date.parse(task.ended_at) - Date.parse(task.started_at)) / 1000)}` : "";
  const attempt = task.attempts.at(-1);
  switch (task.state) {
    case "SUCCEEDED":
      return `It succeeded${took}${task.progress?.headline ? `, with ${task.progress.headline.name} ${number(task.progress.headline.value)}` : ""}.`;
    case "FAILED":
      return `It failed${took}: ${clause(attempt?.failure ? (FAILURES[attempt.failure.code] ?? task.reason ?? "") : (task.reason ?? "nobody knows why"))}`;
    case "CANCELED":
      return `It was canceled${took}.`;
    case "RUNNING":
      return running(task);
    case "SUBMITTING":
    case "SUBMITTED":
      return `It starts now${where(task)}.`;
    default:
      return waiting(task, why);
  }
}

function running(task: Task): string {
  if (task.stalled_since) return `It runs but makes no steps${task.stalled_why ? `: ${clause(task.stalled_why)}` : "."}`;
  const progress = task.progress;
  if (!progress) return `It runs${where(task)}, and has made no step yet.`;
  const left = progress.seconds_left === null ? "" : `; some ${duration(progress.seconds_left)} left`;
  return `It runs${where(task)}: step ${progress.step.toLocaleString("en")}${progress.total_steps ? ` of ${progress.total_steps.toLocaleString("en")}` : ""}${left}.`;
}

function where(task: Task): string {
  if (!task.gang.gpus) return " without GPUs";
  const hosts = task.attempts.at(-1)?.placement?.map((node) => oneLine(node.hostname)) ?? [];
  return ` on ${gang(task.gang)} GPUs${hosts.length && hosts.length <= 3 ? ` (${hosts.join(", ")})` : ""}`;
}

function waiting(task: Task, why: Schemas["ExplanationOut"] | undefined): string {
  const start = startWords(why?.start ?? task.start);
  const words = first(why?.sentence ?? task.reason ?? "It waits for its turn.");
  const range = start.startsWith("starts") ? ` It ${start}.` : "";
  return `${words}${range}`;
}

/** Its first line, up to the end of a sentence. */
function clause(text: string): string {
  const line = oneLine(text.split(/\r?\n/)[0] ?? "").trim();
  return /[.!?]$/.test(line) ? line : `${line}.`;
}

function first(text: string): string {
  const line = clause(text);
  return line.charAt(0).toUpperCase() + line.slice(1);
}

const FAILURES: Readonly<Record<string, string>> = {
  gpu_out_of_memory: "a GPU's memory was used up",
  host_out_of_memory: "the machine's main memory was used up",
  disk_full: "no space was left where the run writes",
  dataset_missing: "a data set is not there",
  dataset_unreadable: "a data set cannot be read",
  dataset_columns: "a data set lacks a column",
  model_not_found: "there is no such model, or a part of it is missing",
  model_unreadable: "the model's weights are broken or cut short",
  file_missing: "a file is not there",
  config_key: "verl does not know a setting",
  import_failed: "a Python module is missing, or of another version",
  no_gpu: "torch found no GPU",
  non_finite_loss: "NaN or infinite numbers ended the run",
  port_in_use: "a port was taken",
  rendezvous_failed: "the processes did not find each other",
  communication_failed: "a process lost the others",
  killed: "it was killed, most often for lack of memory",
  stalled: "it made no steps, and was stopped",
  stopped: "it was stopped from outside",
  crashed: "a native library crashed",
};
