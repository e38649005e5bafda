// The state of a task: a shape, a word and a colour, so that none of them is needed.
import type { TaskState } from "../api/tasks";

type Look = "wait" | "run" | "good" | "bad" | "off";

const LOOKS: Record<TaskState, readonly [Look, string, string]> = {
  QUEUED: ["wait", "Queued", "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2zm0 2.5V8l2.4 1.6"],
  PENDING_RESOURCES: ["wait", "Waiting", "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2zm0 2.5V8l2.4 1.6"],
  SUBMITTING: ["run", "Starting", "M8 13V4M4 7.5 8 3.5l4 4"],
  SUBMITTED: ["run", "Starting", "M8 13V4M4 7.5 8 3.5l4 4"],
  RUNNING: ["run", "Running", "M5 3.5v9l7-4.5z"],
  SUCCEEDED: ["good", "Succeeded", "M3 8.5l3.2 3.2L13 5"],
  FAILED: ["bad", "Failed", "M4 4l8 8M12 4l-8 8"],
  CANCELED: ["off", "Canceled", "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2zM3.8 12.2l8.4-8.4"],
};

export const lookOf = (state: TaskState): Look => LOOKS[state]?.[0] ?? "off";
export const wordOf = (state: TaskState): string => LOOKS[state]?.[1] ?? state;

export function StateBadge({ state }: { state: TaskState }) {
  return (
    <span class="state" data-look={lookOf(state)} title={state}>
      <StateShape state={state} />
      {wordOf(state)}
    </span>
  );
}

export function StateShape({ state }: { state: TaskState }) {
  const path = LOOKS[state]?.[2] ?? "M8 8h0";
  return (
    <svg viewBox="0 0 16 16" aria-hidden="true" fill={state === "RUNNING" ? "currentColor" : "none"} stroke="currentColor" stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round">
      <path d={path} />
    </svg>
  );
}
