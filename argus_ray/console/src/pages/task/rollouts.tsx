// What a model answered while it was trained: the steps, and the samples of one.
import { useState } from "preact/hooks";
import { client, ok, Refused, type Schemas } from "../../api/client";
import { useQuery } from "../../api/queries";
import { ENDED, type Task } from "../../api/tasks";
import { bytes, count, number } from "../../lib/format";
import { route, setQuery } from "../../lib/route";
import { Age, Loading, Trouble } from "../../ui/parts";
import { Sample, type Fit } from "./samples";

const STEPS = 50;
const SAMPLES = 20;
/** Characters of one field that are asked for; the rest stands in the file. */
const MOST_CHARS = 16_384;
const FITS: readonly (readonly [string, string, Fit])[] = [
  ["", "All scores", () => true],
  ["high", "Score above 0", (score) => score !== null && score > 0],
  ["low", "Score 0 or below", (score) => score !== null && score <= 0],
  ["none", "No score", (score) => score === null],
];

export function Rollouts({ task }: { task: Task }) {
  const { query } = route.value;
  const kind: Schemas["Kind"] = query.get("kind") === "validation" ? "validation" : "train";
  const [cursors, setCursors] = useState<readonly string[]>([]);
  const cursor = cursors.at(-1) ?? null;
  const { data, error, refetch } = useQuery({
    key: ["rollouts", task.task_id, kind, cursor],
    ask: (signal) => ok(client.GET("/api/v2/tasks/{task_id}/rollouts", { params: { path: { task_id: task.task_id }, query: { kind, limit: STEPS, ...(cursor ? { cursor } : {}) } }, signal })),
    every: ENDED.has(task.state) || cursor ? false : 15_000,
    keepPrevious: true,
  });
  if (error && !data) {
    const isGone = error instanceof Refused && error.problem.code === "files_gone";
    return isGone ? <p class="card empty">The rollouts are gone: the files of this task are in the trash, or deleted.</p> : <Trouble error={error} again={() => void refetch()} />;
  }
  const asked = Number(query.get("step")) || null;
  const step = asked ?? data?.steps[0]?.step ?? null;
  return (
    <div class="rollouts">
      <section class="card rollouts-steps" aria-label="Steps">
        <header>
          <div class="chips" role="group" aria-label="Kind of samples">
            {(["train", "validation"] as const).map((each) => <button key={each} class="chip" type="button" aria-pressed={each === kind} onClick={() => { setCursors([]); setQuery({ kind: each === "train" ? null : each, step: null }); }}>{each === "train" ? "Training" : "Validation"}</button>)}
          </div>
        </header>
        {!data ? <Loading lines={8} /> : data.steps.length === 0 ? <p class="empty">{kind === "train" ? "No samples yet." : "No validation samples."}</p> : (
          <>
            <ul class="rollouts-list">
              {data.steps.map((each) => (
                <li key={each.step}><button type="button" aria-current={each.step === step ? "true" : undefined} onClick={() => setQuery({ step: each.step })}>
                  <span class="grow num">Step {each.step.toLocaleString("en")}</span>
                  <span class="num">{each.mean_score === null ? <span class="muted">{each.samples === null ? bytes(each.size) : "no score"}</span> : number(each.mean_score)}</span>
                </button></li>
              ))}
            </ul>
            {data.complete ? null : <p class="note" data-look="wait">There are more entries than are looked at: some steps are missing.</p>}
            {cursors.length || data.next_cursor ? (
              <p class="in buttons">
                <button class="button small" type="button" disabled={!cursors.length} onClick={() => setCursors(cursors.slice(0, -1))}>Newer</button>
                <button class="button small" type="button" disabled={!data.next_cursor} onClick={() => setCursors([...cursors, data.next_cursor as string])}>Older</button>
              </p>
            ) : null}
          </>
        )}
      </section>
      {step === null ? (data ? <section class="card empty">{ENDED.has(task.state) ? "This task has left no samples." : "Samples show here as soon as the run writes some."}</section> : <section class="card"><Loading lines={8} /></section>) : <Samples key={`${kind}${step}`} task={task} kind={kind} step={step} />}
    </div>
  );
}

function Samples({ task, kind, step }: { task: Task; kind: Schemas["Kind"]; step: number }) {
  const [cursors, setCursors] = useState<readonly string[]>([]);
  const cursor = cursors.at(-1) ?? null;
  const fitName = route.value.query.get("score") ?? "";
  const [, , fits] = FITS.find(([name]) => name === fitName) ?? (FITS[0] as (typeof FITS)[number]);
  const { data, error, refetch } = useQuery({
    key: ["samples", task.task_id, kind, step, cursor],
    ask: (signal) => ok(client.GET("/api/v2/tasks/{task_id}/rollouts", { params: { path: { task_id: task.task_id }, query: { kind, step, limit: SAMPLES, max_chars: MOST_CHARS, ...(cursor ? { cursor } : {}) } }, signal })),
    keepPrevious: true,
  });
  if (error && !data) return <Trouble error={error} again={() => void refetch()} />;
  const about = data?.steps[0];
  const shown = data?.samples.filter((each) => fits(each.score)) ?? [];
  return (
    <section class="card rollouts-samples" aria-label={`Samples of step ${step}`}>
      <header>
        <h2>Step {step.toLocaleString("en")}</h2>
        <span class="muted grow">{about ? <>attempt {about.attempt}{about.samples === null ? "" : `, ${count(about.samples, "sample")}`}{about.mean_score === null ? "" : `, mean score ${number(about.mean_score)}`}, <Age time={about.modified_at} suffix=" ago" /></> : null}</span>
        <select class="input rollouts-filter" aria-label="Scores" value={fitName} onChange={(event) => setQuery({ score: event.currentTarget.value || null })}>
          {FITS.map(([name, label]) => <option key={name} value={name}>{label}</option>)}
        </select>
      </header>
      {!data ? <Loading lines={8} /> : (
        <>
          {shown.length ? <ol class="samples">{shown.map((each) => <Sample key={each.index} sample={each} />)}</ol> : <p class="empty">{data.samples.length ? "No sample of this page has such a score." : "No whole sample stands here yet."}</p>}
          {cursors.length || data.next_cursor ? (
            <p class="in buttons">
              <button class="button small" type="button" disabled={!cursors.length} onClick={() => setCursors(cursors.slice(0, -1))}>Before</button>
              <span class="muted num">{data.samples.length ? `samples ${(data.samples[0]?.index ?? 0) + 1} to ${(data.samples.at(-1)?.index ?? 0) + 1}` : ""}</span>
              <button class="button small" type="button" disabled={!data.next_cursor} onClick={() => setCursors([...cursors, data.next_cursor as string])}>After</button>
            </p>
          ) : null}
        </>
      )}
    </section>
  );
}
