// When a task that waits may start.
import { until } from "../lib/format";
import type { TaskSummary } from "../api/tasks";

type Start = TaskSummary["start"];

const UNKNOWN: Readonly<Record<string, string>> = {
  no_total_steps: "a run before it does not say how long it is",
  no_pace_yet: "too early to tell",
  stalled: "a run before it makes no steps",
  no_history_ahead: "nothing like it has run yet",
  never_fits: "never fits this pool",
  too_far_back: "far back in the queue",
  maintenance: "maintenance",
  low_disk: "disk is low",
  nodes_away: "nodes are away",
  over_quota: "over quota",
  own_trouble: "waits for itself",
  too_late: "in more than 14 days",
  not_yet: "",
};

/** `starts in 35m to 1h50m`, or why nobody knows. */
export function startWords(start: Start): string {
  if (!start) return "";
  if ("unknown" in start) return UNKNOWN[start.unknown] ?? "";
  const [from, to] = [until(start.earliest), until(start.latest)];
  return from === to ? `starts ${from === "now" ? "now" : `in ${from}`}` : `starts in ${from === "now" ? "0m" : from} to ${to}`;
}
