// The attempts of a task on one line of time, and what became of each.
import type { Schemas } from "../../api/client";
import { client, ok } from "../../api/client";
import { useQuery } from "../../api/queries";
import { ENDED, type Task } from "../../api/tasks";
import { duration, second, serverNow, timeOfDay, moment } from "../../lib/format";
import { href, withQuery } from "../../lib/route";
import { oneLine } from "../../lib/safe";

type Attempt = Schemas["AttemptOut"];

const OUTCOMES: Readonly<Record<string, readonly [string, string]>> = {
  SUCCEEDED: ["good", "succeeded"],
  APPLICATION: ["bad", "failed"],
  INFRASTRUCTURE: ["wait", "lost"],
  INSUFFICIENT_RESOURCES: ["wait", "refused"],
  CANCELED: ["off", "canceled"],
};

export function Attempts({ task }: { task: Task }) {
  void second.value;
  const trains = task.workload !== "export";
  const { data: curves } = useQuery({
    key: ["steps", task.task_id],
    ask: (signal) => ok(client.GET("/api/v2/tasks/{task_id}/metrics", { params: { path: { task_id: task.task_id }, query: { max_points: 2, names: ["-"] } }, signal })),
    enabled: trains && task.attempts.length > 0 && task.files_at === "JOB_ROOT",
    every: ENDED.has(task.state) ? false : 15_000,
  });
  if (!task.attempts.length) return null;
  const begin = Date.parse(task.created_at);
  const end = Math.max(begin + 1000, task.ended_at ? Date.parse(task.ended_at) : serverNow());
  const part = (time: string | null): number => ((time ? Date.parse(time) : end) - begin) / (end - begin);
  return (
    <section class="card" aria-label="Attempts">
      <header><h2 class="grow">Attempts</h2><span class="muted">{task.attempts.length === 1 ? "one" : task.attempts.length}</span></header>
      <div class="in timeline">
        <div class="timeline-axis muted num" aria-hidden="true"><span>{moment(task.created_at)}</span><span>{task.ended_at ? timeOfDay(task.ended_at) : "now"}</span></div>
        <ol>
          {task.attempts.map((each) => {
            const [look, word] = each.outcome ? (OUTCOMES[each.outcome] ?? ["off", each.outcome]) : ["run", each.state === "RUNNING" ? "running" : each.state.toLowerCase()];
            const from = part(each.started_at ?? each.created_at);
            const steps = curves?.attempts.find((found) => found.attempt === each.number);
            return (
              <li key={each.number} class="attempt">
                <a class="attempt-name" href={withQuery(href("task", task.task_id, "log"), { attempt: each.number })} title="To its log">#{each.number}</a>
                <span class="state" data-look={look}>{word}</span>
                <span class="attempt-bar" data-look={look} aria-hidden="true"><i style={{ left: `${Math.max(0, Math.min(99.5, from * 100))}%`, width: `${Math.max(0.5, (part(each.ended_at) - from) * 100)}%` }} /></span>
                <span class="num muted nowrap attempt-took">{took(each)}</span>
                <span class="attempt-words"><bdi>{words(each, steps)}</bdi></span>
              </li>
            );
          })}
        </ol>
      </div>
    </section>
  );
}

function took(attempt: Attempt): string {
  if (!attempt.started_at) return "not started";
  return duration(((attempt.ended_at ? Date.parse(attempt.ended_at) : serverNow()) - Date.parse(attempt.started_at)) / 1000);
}

function words(attempt: Attempt, steps: Schemas["AttemptStepsOut"] | undefined): string {
  const hosts = attempt.placement?.map((node) => `${oneLine(node.hostname)} (${node.gpus})`).join(", ");
  const reason = attempt.reason ? oneLine(attempt.reason.split(/\r?\n/)[0] ?? "") : "";
  return [
    steps?.first_step != null && steps.last_step != null ? `steps ${steps.first_step.toLocaleString("en")} to ${steps.last_step.toLocaleString("en")}` : "",
    hosts ? `on ${hosts}` : "",
    attempt.failure ? attempt.failure.code : "",
    reason,
    attempt.exit_code !== null && attempt.exit_code !== 0 ? `exit code ${attempt.exit_code}` : "",
  ].filter(Boolean).join(" · ");
}
