// What stands above all parts of a task: the answer, how far it is, and what can be done.
import { useState } from "preact/hooks";
import { ENDED, type Task } from "../../api/tasks";
import { duration, number, second, shortId } from "../../lib/format";
import { href, withQuery } from "../../lib/route";
import { Age, Bar, Copy } from "../../ui/parts";
import { lookOf, StateBadge, wordOf } from "../../ui/state";
import { commandOf } from "./commands";
import { useExplain } from "./data";
import { CancelDialog, ExportDialog, ResubmitDialog } from "./dialogs";
import { sentence } from "./sentence";

type Asking = "cancel" | "resubmit" | "resume" | "export";

export function TaskHead({ task, tab }: { task: Task; tab: string }) {
  void second.value;
  const [asking, setAsking] = useState<Asking | null>(null);
  const waits = task.state === "QUEUED" || task.state === "PENDING_RESOURCES";
  const { data: why } = useExplain(task, waits);
  const close = (): void => setAsking(null);
  const command = commandOf(task, tab);
  return (
    <header class="card task-head">
      <div class="head">
        <h1 class="task-name"><span>{task.workload}</span> <span class="mono" title={task.task_id}>{shortId(task.task_id)}</span></h1>
        <StateBadge state={task.state} />
        {task.stalled_since ? <span class="state" data-look="wait">stalled</span> : null}
        <span class="grow" />
        <Buttons task={task} ask={setAsking} />
      </div>
      <span class="sr-only" aria-live="polite">{wordOf(task.state)}</span>
      <p class="task-answer"><bdi>{sentence(task, waits ? why : undefined)}</bdi></p>
      <Progress task={task} />
      <div class="task-id">
        <code class="cut" title={task.task_id}>{task.task_id}</code><Copy text={task.task_id} label="Copy id" />
        <span class="muted nowrap">{ENDED.has(task.state) ? <>ended <Age time={task.ended_at} suffix=" ago" /></> : <>submitted <Age time={task.created_at} suffix=" ago" /></>}</span>
        <span class="grow" />
        <code class="cut task-command" title={command}>{command}</code><Copy text={command} label="Copy as CLI" />
      </div>
      {asking === "cancel" ? <CancelDialog task={task} close={close} /> : null}
      {asking === "resubmit" || asking === "resume" ? <ResubmitDialog task={task} resume={asking === "resume"} close={close} /> : null}
      {asking === "export" ? <ExportDialog task={task} close={close} /> : null}
    </header>
  );
}

function Buttons({ task, ask }: { task: Task; ask: (what: Asking) => void }) {
  const trains = task.workload !== "export";
  const hasEnded = ENDED.has(task.state);
  const hasRun = task.attempts.length > 0 && task.files_at === "JOB_ROOT";
  return (
    <div class="buttons">
      {hasEnded && trains && task.state !== "SUCCEEDED" && task.attempts.length ? <button class="button" type="button" onClick={() => ask("resume")}>Resume…</button> : null}
      {hasEnded && trains ? <button class="button" type="button" onClick={() => ask("resubmit")}>Resubmit…</button> : null}
      {trains && hasRun ? <button class="button" type="button" onClick={() => ask("export")}>Export…</button> : null}
      {trains ? <a class="button" href={withQuery(href("compare"), { task: [task.task_id] })}>Compare</a> : null}
      {hasEnded ? null : <button class="button danger" type="button" onClick={() => ask("cancel")}>Cancel…</button>}
    </div>
  );
}

function Progress({ task }: { task: Task }) {
  const { progress } = task;
  if (!progress) return null;
  const { step, total_steps: total, steps_per_s: rate, seconds_left: left, headline } = progress;
  const look = task.state === "RUNNING" ? "run" : lookOf(task.state);
  const isRunning = task.state === "RUNNING";
  return (
    <div class="task-progress">
      {total ? <Bar part={step / total} look={look} label={`Steps of ${shortId(task.task_id)}`} /> : null}
      <dl class="task-numbers">
        <div><dt>Step</dt><dd class="num">{step.toLocaleString("en")}{total ? <span class="muted"> / {total.toLocaleString("en")}</span> : null}</dd></div>
        <div><dt>Pace</dt><dd class="num">{isRunning && rate ? pace(rate) : "–"}</dd></div>
        <div><dt>Left</dt><dd class="num">{isRunning && left !== null ? duration(left) : "–"}</dd></div>
        {headline ? <div><dt class="cut">{headline.name}</dt><dd class="num">{number(headline.value)}</dd></div> : null}
      </dl>
    </div>
  );
}

const pace = (rate: number): string => (rate >= 1 ? `${number(rate)} steps/s` : `${number(1 / rate)} s/step`);
