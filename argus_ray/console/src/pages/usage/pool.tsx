// Of everybody, for administrators: a chart by day beside the sums.
import { useQuery } from "../../api/queries";
import { gpuHours } from "../../lib/format";
import { href, route, setQuery, withQuery } from "../../lib/route";
import { Empty, Loading, Trouble } from "../../ui/parts";
import { Chart, colourOf } from "./chart";
import { askUsage, type By, type Sums, type Used } from "./rows";

const SPANS: readonly (readonly [since: string, words: string])[] = [["7d", "7 days"], ["30d", "30 days"], ["90d", "90 days"], ["365d", "a year"]];

export function PoolUsage() {
  const { query } = route.value;
  const by: By = query.get("by") === "workload" ? "workload" : "user";
  const since = SPANS.find(([each]) => each === query.get("since"))?.[0] ?? "30d";
  const { data, error, refetch } = useQuery({ key: ["usage", by, since], ask: (signal) => askUsage(by, since, signal), every: 60_000, keepPrevious: true });
  return (
    <>
      <div class="head">
        <h2 class="grow">All users</h2>
        <div class="chips" role="group" aria-label="By">
          {(["user", "workload"] as const).map((each) => <button key={each} class="chip" type="button" aria-pressed={by === each} onClick={() => setQuery({ by: each })}>By {each === "user" ? "user" : "kind"}</button>)}
        </div>
        <div class="chips" role="group" aria-label="Time">
          {SPANS.map(([each, words]) => <button key={each} class="chip" type="button" aria-pressed={since === each} onClick={() => setQuery({ since: each })}>{words}</button>)}
        </div>
      </div>
      {error && !data ? <Trouble error={error} again={() => void refetch()} /> : null}
      {data ? <Shown used={data} by={by} /> : error ? null : <div class="card"><Loading lines={8} /></div>}
    </>
  );
}

function Shown({ used, by }: { used: Used; by: By }) {
  if (!used.rows.length) return <div class="card"><Empty>Nothing ran then.</Empty></div>;
  return (
    <>
      <div class="usage-columns">
        <section class="card" aria-label="By day"><Chart used={used} title={`GPU hours by day and ${by === "user" ? "user" : "kind"}`} /></section>
        <section class="card" aria-label="Sums"><SumsTable used={used} by={by} /></section>
      </div>
      {used.isWhole ? null : <p class="note" data-look="wait">There are more rows than this page reads: the sums are too small. Choose a shorter time.</p>}
      <details class="card by-day">
        <summary>GPU hours by day as a table</summary>
        <div class="scroll-x"><DayTable used={used} /></div>
      </details>
      <p class="muted">Days are UTC. GPU hours are GPUs times hours from the start of a run to its end; what runs now is in it.</p>
    </>
  );
}

function SumsTable({ used, by }: { used: Used; by: By }) {
  const all = used.total.gpu_seconds || 1;
  return (
    <div class="scroll-x">
      <table class="table">
        <thead><tr><th scope="col">{by === "user" ? "User" : "Kind"}</th><th scope="col" class="num">GPU hours</th><th scope="col" class="num">Share</th><th scope="col" class="num">Tasks</th><th scope="col" class="num">Succeeded</th><th scope="col" class="num">Failed</th><th scope="col" class="num">Canceled</th></tr></thead>
        <tbody>
          {used.rows.map(({ name, colour, sums }) => (
            <tr key={name}>
              <th scope="row"><i class="swatch" style={{ background: colourOf(colour) }} />{by === "user" ? <a href={withQuery(href("tasks"), { user: name })}><bdi>{name}</bdi></a> : <a href={withQuery(href("tasks"), { kind: name })}>{name}</a>}</th>
              <Numbers sums={sums} share={sums.gpu_seconds / all} />
            </tr>
          ))}
        </tbody>
        <tfoot><tr><th scope="row">All</th><Numbers sums={used.total} share={1} /></tr></tfoot>
      </table>
    </div>
  );
}

function Numbers({ sums, share }: { sums: Sums; share: number }) {
  return (
    <>
      <td class="num">{gpuHours(sums.gpu_seconds)}</td>
      <td class="num">{Math.round(share * 100)} %</td>
      {[sums.tasks, sums.succeeded, sums.failed, sums.canceled].map((many, index) => <td key={index} class="num">{many.toLocaleString("en")}</td>)}
    </>
  );
}

function DayTable({ used }: { used: Used }) {
  const days = used.days.map((day, index) => [day, index] as const).reverse();
  return (
    <table class="table">
      <thead><tr><th scope="col">Day</th>{used.series.map((each) => <th key={each.name} scope="col" class="num"><bdi>{each.name}</bdi></th>)}<th scope="col" class="num">All</th></tr></thead>
      <tbody>
        {days.map(([day, index]) => (
          <tr key={day}>
            <th scope="row" class="num-left">{day}</th>
            {used.series.map((each) => <td key={each.name} class="num">{each.values[index] ? gpuHours(each.values[index]) : ""}</td>)}
            <td class="num">{gpuHours(used.series.reduce((sum, each) => sum + (each.values[index] ?? 0), 0))}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
