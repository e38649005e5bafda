// Charts of one task, or of several over each other: one for each name, all with one cursor and one zoom.
import { signal } from "@preact/signals";
import { useMemo, useState } from "preact/hooks";
import type { TaskCurves } from "../../api/curves";
import { boundaries, secondsAt } from "../../lib/series";
import { type Board, Chart, type Series } from "../../ui/chart";
import { Empty } from "../../ui/parts";

export interface Run {
  readonly id: string;
  readonly label: string;
  readonly colour: number;
}

interface Props {
  runs: readonly Run[];
  curves: ReadonlyMap<string, TaskCurves>;
  names: readonly string[];
  setNames: (names: readonly string[]) => void;
}

const TIMING = "timing_s/step";
/** As many as the API gives beside the main ones. */
const MOST_NAMES = 16;
/** Those first that tell whether a run learns. */
const FIRST = ["critic/score/mean", "train/loss", "val/loss", "critic/rewards/mean"];

export function CurveBoard({ runs, curves, names, setNames }: Props) {
  const board = useMemo<Board>(() => ({ key: `board-${runs.map((run) => run.id).join()}`, zoom: signal(null) }), [runs.map((run) => run.id).join()]);
  const [smoothing, setSmoothing] = useState(0);
  const [isLog, setLog] = useState(false);
  const [byTime, setByTime] = useState(false);
  const hasTime = runs.every((run) => (curves.get(run.id)?.curves[TIMING]?.steps.length ?? 0) > 0);
  const xIs = byTime && hasTime ? "seconds" : "step";

  const found = new Set(runs.flatMap((run) => Object.keys(curves.get(run.id)?.curves ?? {})));
  const order = (name: string): number => (FIRST.includes(name) ? FIRST.indexOf(name) : name.startsWith("val-core/") ? FIRST.length : FIRST.length + 1);
  const shown = [...found].sort((a, b) => order(a) - order(b));
  const more = [...new Set(runs.flatMap((run) => curves.get(run.id)?.available ?? []))].filter((name) => !found.has(name)).sort();

  return (
    <>
      <div class="board-bar">
        <label class="range">Smoothing <input type="range" min="0" max="0.98" step="0.02" value={smoothing} onInput={(event) => setSmoothing(Number(event.currentTarget.value))} /> <span class="num muted">{smoothing ? smoothing.toFixed(2) : "off"}</span></label>
        <label><input type="checkbox" checked={isLog} onChange={(event) => setLog(event.currentTarget.checked)} /> Logarithmic</label>
        <label title={hasTime ? undefined : "These runs do not log how long a step takes"}><input type="checkbox" checked={xIs === "seconds"} disabled={!hasTime} onChange={(event) => setByTime(event.currentTarget.checked)} /> By time</label>
        {board.zoom.value ? <button class="button small" type="button" onClick={() => (board.zoom.value = null)}>Show all steps</button> : <span class="muted">Drag over a chart to zoom</span>}
        <span class="grow" />
        {more.length || names.length ? <AddCurve more={more} names={names} setNames={setNames} /> : null}
      </div>
      {shown.length ? (
        <div class="board">
          {shown.map((name) => {
            const parts = runs.flatMap((run) => {
              const curve = curves.get(run.id)?.curves[name];
              return curve?.steps.length ? [{ run, curve }] : [];
            });
            const series = parts.map(({ run, curve }): Series => ({ label: run.label, colour: run.colour, x: xOf(run, curve.steps), y: curve.values }));
            const marks = runs.length === 1 && parts[0] ? boundaries(parts[0].curve).map((each) => ({ at: xOf(runs[0] as Run, [each.at])[0] as number, label: `attempt ${each.attempt}` })) : [];
            return <Chart key={name} name={name} series={series} board={board} marks={marks} isLog={isLog} smoothing={smoothing} xIs={xIs} />;
          })}
        </div>
      ) : <div class="card"><Empty>No curves yet: they come with the first step.</Empty></div>}
      <p class="muted">A curve of more than 2,048 points is reduced; its lowest and highest values stay.</p>
    </>
  );

  function xOf(run: Run, steps: readonly number[]): readonly number[] {
    const timing = curves.get(run.id)?.curves[TIMING];
    return xIs === "seconds" && timing ? steps.map(secondsAt(timing)) : steps;
  }
}

function AddCurve({ more, names, setNames }: { more: readonly string[]; names: readonly string[]; setNames: Props["setNames"] }) {
  const [typed, setTyped] = useState("");
  function choose(name: string): void {
    if (more.includes(name) && names.length < MOST_NAMES) {
      setNames([...names, name]);
      setTyped("");
    } else setTyped(name);
  }
  return (
    <span class="add-curve">
      {names.map((name) => <button key={name} class="chip" type="button" aria-label={`Leave ${name} out`} onClick={() => setNames(names.filter((each) => each !== name))}>{name} ×</button>)}
      <input class="input" list="curve-names" aria-label="Add a curve" placeholder="Add a curve" value={typed} disabled={names.length >= MOST_NAMES} onInput={(event) => choose(event.currentTarget.value)} />
      <datalist id="curve-names">{more.map((name) => <option key={name} value={name} />)}</datalist>
    </span>
  );
}
