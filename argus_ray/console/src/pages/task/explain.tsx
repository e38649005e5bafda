// Why a task is where it is, and when it may start.
import type { Schemas } from "../../api/client";
import type { Task } from "../../api/tasks";
import { count, moment, number, second, timeOfDay, until } from "../../lib/format";
import { href } from "../../lib/route";
import { oneLine } from "../../lib/safe";
import { Age, Loading, Trouble } from "../../ui/parts";
import { startWords } from "../../ui/start";
import { useExplain } from "./data";

type Why = Schemas["ExplanationOut"];

const BASIS = {
  firm: "firm: every node that it could use is kept for it, so nothing else starts there first",
  assumes_no_overtaking: "if nothing overtakes it: others may still start before it",
} as const;

export function Explain({ task }: { task: Task }) {
  const { data: why, error, refetch } = useExplain(task);
  if (error && !why) return <Trouble error={error} again={() => void refetch()} />;
  if (!why) return <div class="card"><Loading lines={5} /></div>;
  const waits = why.position !== null;
  return (
    <div class="grid2 explain">
      <section class="card" aria-label="Why">
        <header><h2 class="grow">Why</h2><code>{why.code}</code></header>
        <div class="in">
          <p class="explain-sentence"><bdi>{oneLine(why.sentence)}</bdi></p>
          {why.maintenance.on ? <p class="note" data-look="wait">Maintenance is on{why.maintenance.reason ? <>: <bdi>{oneLine(why.maintenance.reason)}</bdi></> : null}. Nothing starts meanwhile.</p> : null}
          <dl class="facts">
            {waits ? <Ahead why={why} /> : null}
            {why.next_retry_at ? <><dt>Next try</dt><dd class="num">{moment(why.next_retry_at)}</dd></> : null}
            <dt>GPUs held</dt><dd class="num">{number(why.gpus_held)}{why.gpus_quota === null ? <span class="muted"> (no quota)</span> : ` of ${number(why.gpus_quota)} at a time`}</dd>
            {why.recent_gpu_hours === null ? null : <><dt>Used of late</dt><dd class="num">{number(why.recent_gpu_hours)} GPU hours <span class="muted">(who used less goes first)</span></dd></>}
            {waits && why.would_start_now !== null ? <><dt>Would start now</dt><dd>{wouldStart(why)}</dd></> : null}
          </dl>
        </div>
      </section>
      {waits || why.first_estimate ? <Start why={why} waits={waits} /> : null}
      {why.shortfall ? <Shortfall why={why} rows={why.shortfall} /> : null}
    </div>
  );
}

function Ahead({ why }: { why: Why }) {
  return (
    <>
      <dt>Position</dt><dd class="num">{why.position?.toLocaleString("en")}</dd>
      <dt>Before it</dt>
      <dd>
        {count(why.own_ahead.length, "task")} of yours{why.own_ahead.length ? ": " : ""}
        {why.own_ahead.map((id, index) => <span key={id}>{index ? ", " : ""}<a class="mono" href={href("task", id)} title={id}>{id.slice(-4)}</a></span>)}
        , {count(why.others_ahead, "of others", "of others")}
      </dd>
      <dt>Holding GPUs</dt><dd>{count(why.active_tasks, "task")} of everyone</dd>
    </>
  );
}

function wouldStart(why: Why): string {
  const most = why.would_start_now ?? 0;
  if (most >= why.gang.nnodes) return "all of it, behind nobody";
  return most ? `a gang of ${count(most, "node")}; it asks for ${why.gang.nnodes}` : "no gang of this shape, however few nodes";
}

function Start({ why, waits }: { why: Why; waits: boolean }) {
  void second.value;
  const { start, first_estimate: first } = why;
  return (
    <section class="card" aria-label="When it may start">
      <header><h2>When it may start</h2></header>
      <div class="in">
        {!waits || !start ? null : "earliest" in start ? (
          <>
            <p class="explain-sentence">It {startWords(start)}.</p>
            <p class="muted num">{moment(start.earliest)} to {moment(start.latest)}</p>
            <p class="muted">The range is {BASIS[start.basis]}. It may be sooner if a task ends early, and later if a machine is lost.</p>
          </>
        ) : <p class="explain-sentence">{startWords(start) ? `Nobody can tell: ${startWords(start)}.` : "It is not worked out yet."}</p>}
        {first ? (
          <dl class="facts"><dt>First estimate</dt><dd class="num">{until(first.latest) === "now" ? `${moment(first.earliest)} to ${timeOfDay(first.latest)}` : `${moment(first.earliest)} to ${moment(first.latest)}`} <span class="muted">(told <Age time={first.at} suffix=" ago" />)</span></dd></dl>
        ) : null}
      </div>
    </section>
  );
}

function Shortfall({ why, rows }: { why: Why; rows: readonly Schemas["NodeShortfallOut"][] }) {
  return (
    <section class="card explain-missing" aria-label="What is missing">
      <header><h2 class="grow">What is missing</h2><span class="muted">{count(why.gang.nnodes, "node")} with {count(why.gang.gpus_per_node, "GPU")} and {count(why.gang.cpus_per_node, "CPU")} each</span></header>
      {rows.length === 0 ? <p class="in muted">No worker is there.</p> : (
        <div class="scroll-x" tabIndex={0} role="group" aria-label="Table of workers"><table class="table">
          <thead><tr><th scope="col">Worker</th><th scope="col" class="num">GPUs free</th><th scope="col" class="num">missing</th><th scope="col" class="num">CPUs free</th><th scope="col" class="num">missing</th><th scope="col">Takes gangs</th></tr></thead>
          <tbody>
            {rows.map((row, index) => {
              const fits = !row.barred && row.gpus_missing <= 0 && row.cpus_missing <= 0;
              return (
                <tr key={index}>
                  <td>{index + 1}{fits ? " ✓" : ""}<span class="sr-only">{fits ? " has room" : ""}</span></td>
                  <td class="num">{number(row.gpus_free)}</td><td class="num">{row.gpus_missing > 0 ? <b>{number(row.gpus_missing)}</b> : "–"}</td>
                  <td class="num">{number(row.cpus_free)}</td><td class="num">{row.cpus_missing > 0 ? <b>{number(row.cpus_missing)}</b> : "–"}</td>
                  <td>{row.barred ? <bdi>{oneLine(row.barred)}</bdi> : "yes"}</td>
                </tr>
              );
            })}
          </tbody>
        </table></div>
      )}
    </section>
  );
}
