// GPU hours of each day, one upon another. Arrow keys or the mouse choose a day; the same stands in a table below.
import { useState } from "preact/hooks";
import { gpuHours } from "../../lib/format";
import type { Used } from "./rows";

const HEIGHT = 100;
const HOUR_S = 3600;
const dayName = new Intl.DateTimeFormat(undefined, { weekday: "short", day: "numeric", month: "short", timeZone: "UTC" });
const shortDay = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", timeZone: "UTC" });

/** The next of 1, 2, 5, 10, ... */
function nice(value: number): number {
  const size = 10 ** Math.floor(Math.log10(Math.max(value, 1e-3)));
  return ([1, 2, 5, 10].find((each) => each * size >= value) ?? 10) * size;
}

export const colourOf = (colour: number): string => (colour ? `var(--c${colour})` : "var(--off)");

export function Chart({ used, title }: { used: Used; title: string }) {
  const { days, series } = used;
  const [at, setAt] = useState<number | null>(null);
  const sums = days.map((_, day) => series.reduce((sum, each) => sum + (each.values[day] ?? 0), 0));
  const top = nice(Math.max(...sums, 1) / HOUR_S) * HOUR_S;
  const gap = days.length > 120 ? 0 : 0.16;

  function key(event: KeyboardEvent): void {
    const last = days.length - 1;
    const moves: Record<string, number> = { ArrowLeft: (at ?? days.length) - 1, ArrowRight: (at ?? last - 1) + 1, Home: 0, End: last };
    const to = moves[event.key];
    if (event.key === "Escape") setAt(null);
    else if (to === undefined) return;
    else setAt(Math.max(0, Math.min(last, to)));
    event.preventDefault();
  }

  function point(event: PointerEvent): void {
    const box = (event.currentTarget as Element).getBoundingClientRect();
    setAt(Math.max(0, Math.min(days.length - 1, Math.floor(((event.clientX - box.left) / box.width) * days.length))));
  }

  return (
    <figure class="usage-chart" aria-label={title} tabIndex={0} onKeyDown={key} onPointerLeave={() => setAt(null)}>
      <figcaption aria-live="polite"><Readout used={used} at={at} sums={sums} /></figcaption>
      <div class="usage-plot">
        <div class="usage-y num" aria-hidden="true"><span>{gpuHours(top)}</span><span>{gpuHours(top / 2)}</span><span>0</span></div>
        <svg viewBox={`0 0 ${days.length} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true" onPointerMove={point}>
          {[0, 0.5].map((part) => <line key={part} class="usage-grid" x1="0" x2={days.length} y1={part * HEIGHT} y2={part * HEIGHT} />)}
          {at === null ? null : <rect class="usage-at" x={at} y="0" width="1" height={HEIGHT} />}
          {days.map((day, index) => <Stack key={day} used={used} day={index} x={index + gap / 2} width={1 - gap} top={top} />)}
        </svg>
        <div class="usage-x num" aria-hidden="true">
          {[0, Math.floor((days.length - 1) / 2), days.length - 1].map((index, place) => <span key={place}>{days[index] ? shortDay.format(new Date(days[index])) : ""}</span>)}
        </div>
      </div>
    </figure>
  );
}

function Stack({ used, day, x, width, top }: { used: Used; day: number; x: number; width: number; top: number }) {
  let below = HEIGHT;
  return (
    <>
      {used.series.map((each) => {
        const height = ((each.values[day] ?? 0) / top) * HEIGHT;
        if (!height) return null;
        below -= height;
        // A line of the background between two, so that they are told apart without their hues.
        return <rect key={each.name} x={x} y={below} width={width} height={Math.max(0.2, height - 0.5)} style={{ fill: colourOf(each.colour) }} />;
      })}
    </>
  );
}

function Readout({ used, at, sums }: { used: Used; at: number | null; sums: readonly number[] }) {
  if (at === null) return <><b class="num">{gpuHours(used.total.gpu_seconds)} GPU hours</b> <span class="muted">in {used.days.length} days</span></>;
  const parts = used.series.filter((each) => each.values[at]);
  return (
    <>
      <b class="num">{dayName.format(new Date(used.days[at] ?? 0))}: {gpuHours(sums[at] ?? 0)} GPU hours</b>
      <span class="muted num usage-parts">{parts.map((each) => <span key={each.name}><i class="swatch" style={{ background: colourOf(each.colour) }} /><bdi>{each.name}</bdi> {gpuHours(each.values[at] ?? 0)}</span>)}</span>
    </>
  );
}
