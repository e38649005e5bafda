// Why it failed, what was in doubt, its facts, and its attempts.
import type { ComponentChildren } from "preact";
import { isAdmin } from "../../api/session";
import { ENDED, type Task } from "../../api/tasks";
import { bytes, duration, gang, moment, number, shortId } from "../../lib/format";
import { href, withQuery } from "../../lib/route";
import { harmless, oneLine } from "../../lib/safe";
import { Age, Copy } from "../../ui/parts";
import { StateBadge } from "../../ui/state";
import { Attempts } from "./attempts";
import { useSuccessors } from "./data";

export function Overview({ task }: { task: Task }) {
  return (
    <>
      <Failure task={task} />
      {task.warnings.length ? (
        <section class="note" data-look="wait" aria-label="Warnings">
          <h2>In doubt at the submission</h2>
          <ul>{task.warnings.map((each) => <li key={each.field + each.rule}><b><bdi>{oneLine(each.field)}</bdi></b>: <bdi>{oneLine(each.rule)}</bdi></li>)}</ul>
        </section>
      ) : null}
      <Attempts task={task} />
      <div class="grid2 overview">
        <Facts task={task} />
        <Settings task={task} />
      </div>
    </>
  );
}

function Failure({ task }: { task: Task }) {
  const attempt = task.attempts.at(-1);
  if (task.state !== "FAILED") return null;
  const failure = attempt?.failure;
  return (
    <section class="note failure" data-look="bad" aria-label="Why it failed">
      <h2>{failure ? <code>{failure.code}</code> : "Why it failed"}</h2>
      {failure?.line ? <pre tabIndex={0}><bdi dir="ltr">{harmless(failure.line)}</bdi></pre> : task.reason ? <pre tabIndex={0}><bdi dir="ltr">{harmless(task.reason)}</bdi></pre> : null}
      {failure?.hint ? <p><b>Next:</b> <bdi>{oneLine(failure.hint)}</bdi></p> : null}
      {failure?.line && task.reason && attempt ? (
        <details><summary>All that is said of it</summary><pre tabIndex={0}><bdi dir="ltr">{harmless(task.reason)}</bdi></pre></details>
      ) : null}
      {attempt ? <p><a class="button small" href={withQuery(href("task", task.task_id, "log"), { attempt: attempt.number === task.attempts.at(-1)?.number ? null : attempt.number })}>To the end of the log</a></p> : null}
    </section>
  );
}

function Facts({ task }: { task: Task }) {
  const { data: successors } = useSuccessors(task);
  const newest = task.attempts.at(-1);
  const disk = task.attempts.reduce<number | null>((sum, each) => (each.disk_bytes === null ? sum : (sum ?? 0) + each.disk_bytes), null);
  const places = { JOB_ROOT: "at their job roots", LEAVING: "on their way to the trash", TRASH: "in the trash", DELETED: "deleted" } as const;
  return (
    <section class="card" aria-label="Facts">
      <header><h2>Facts</h2></header>
      <dl class="facts in">
        <Fact name="Id"><code>{task.task_id}</code></Fact>
        {isAdmin.value ? <Fact name="User"><bdi>{oneLine(task.user_id)}</bdi></Fact> : null}
        <Fact name="Submitted"><When time={task.created_at} /></Fact>
        {task.started_at ? <Fact name="Started"><When time={task.started_at} /> <span class="muted">after {between(task.created_at, task.started_at)}</span></Fact> : null}
        {task.ended_at ? <Fact name="Ended"><When time={task.ended_at} />{task.started_at ? <span class="muted"> after {between(task.started_at, task.ended_at)}</span> : null}</Fact> : null}
        <Fact name="Gang">{task.gang.gpus ? `${gang(task.gang)} GPUs, ` : ""}{number(task.gang.cpus)} CPUs</Fact>
        {task.position !== null && !ENDED.has(task.state) ? <Fact name="Position">{task.position.toLocaleString("en")} <a href={href("queue")}>in the queue</a></Fact> : null}
        <Fact name="Presets">{task.presets.length ? task.presets.map(oneLine).join(", ") : <span class="muted">none</span>}</Fact>
        {newest ? <Fact name="Job root"><code>{oneLine(newest.job_root)}</code> <Copy text={newest.job_root} /></Fact> : null}
        {task.attempts.length ? <Fact name="Files">{places[task.files_at]}{disk === null ? "" : `, ${bytes(disk)}`}</Fact> : null}
        {task.resubmitted_from ? <Fact name="Resubmitted from"><TaskLink id={task.resubmitted_from} /></Fact> : null}
        {successors?.length ? <Fact name="Resubmitted as"><span class="buttons">{successors.map((each) => <span key={each.task_id}><TaskLink id={each.task_id} /> <StateBadge state={each.state} /></span>)}</span></Fact> : null}
        {task.export ? <Fact name="Export of"><TaskLink id={task.export.exported_from} />, step {task.export.step.toLocaleString("en")}, {task.export.part}</Fact> : null}
        {task.export?.path ? <Fact name="Made"><code>{oneLine(task.export.path)}</code> <Copy text={task.export.path} /></Fact> : null}
        {task.exports.length ? (
          <Fact name="Exports">
            <ul>{task.exports.map((each) => <li key={each.task_id}><TaskLink id={each.task_id} /> step {each.step.toLocaleString("en")} <StateBadge state={each.state} /> {each.path ? <code>{oneLine(each.path)}</code> : null}</li>)}</ul>
          </Fact>
        ) : null}
      </dl>
    </section>
  );
}

function Fact({ name, children }: { name: string; children: ComponentChildren }) {
  return <><dt>{name}</dt><dd>{children}</dd></>;
}

function When({ time }: { time: string }) {
  return <><span class="num">{moment(time)}</span> <span class="muted">(<Age time={time} suffix=" ago" />)</span></>;
}

function TaskLink({ id }: { id: string }) {
  return <a class="mono" href={href("task", id)} title={id}>{shortId(id)}</a>;
}

const between = (from: string, to: string): string => duration((Date.parse(to) - Date.parse(from)) / 1000);

function Settings({ task }: { task: Task }) {
  const { settings } = task;
  return (
    <section class="card" aria-label="Settings">
      <header><h2 class="grow">Settings</h2><span class="muted">beside the TaskSpec</span></header>
      {settings?.length ? (
        <div class="scroll-x" tabIndex={0} role="group" aria-label="Table of settings"><table class="table settings">
          <thead><tr><th scope="col">Key</th><th scope="col">Value</th><th scope="col">From</th></tr></thead>
          <tbody>
            {settings.map((each) => <tr key={each.key}><td><code>{oneLine(each.key)}</code></td><td><code>{oneLine(JSON.stringify(each.value) ?? "")}</code></td><td class="muted nowrap"><bdi>{oneLine(each.source)}</bdi></td></tr>)}
          </tbody>
        </table></div>
      ) : <p class="in muted">{settings ? "verl is told nothing beside it." : "A task of an earlier version: its attempts use the defaults."}</p>}
    </section>
  );
}
