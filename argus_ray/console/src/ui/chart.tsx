// A chart of some series over one x. All charts of a board share the cursor and the zoom. Only one in sight draws, ten
// times a second at most.
import type { Signal } from "@preact/signals";
import { useEffect, useId, useLayoutEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { duration, number } from "../lib/format";
import { aligned, lowerBound, type Points, smooth } from "../lib/series";
import { isDark } from "./theme";

export interface Series extends Points {
  readonly label: string;
  /** 1 to 8: which colour of the tokens. */
  readonly colour: number;
}

export interface Board {
  /** Charts of the same board move together. */
  readonly key: string;
  readonly zoom: Signal<readonly [number, number] | null>;
}

export interface ChartProps {
  name: string;
  series: readonly Series[];
  board: Board;
  /** Where something begins, with its name. */
  marks?: readonly { at: number; label: string }[];
  isLog?: boolean;
  smoothing?: number;
  xIs?: "step" | "seconds";
}

const HEIGHT = 200;
const EVERY_MS = 100;
/** Rows of the table that stands for the chart. */
const TABLE_ROWS = 50;

export function Chart({ name, series, board, marks = [], isLog = false, smoothing = 0, xIs = "step" }: ChartProps) {
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const drawn = useRef(0);
  const inSight = useRef(false);
  const waiting = useRef<number | undefined>(undefined);
  const now = useRef({ series, marks, smoothing });
  now.current = { series, marks, smoothing };
  const [at, setAt] = useState<number | null>(null);
  const id = useId();
  const shape = series.map((each) => `${each.label}:${each.colour}`).join("|");

  function draw(): void {
    clearTimeout(waiting.current);
    const wait = drawn.current + EVERY_MS - performance.now();
    if (wait > 0) {
      waiting.current = setTimeout(draw, wait);
      return;
    }
    if (!inSight.current || !plot.current) return;
    drawn.current = performance.now();
    const zoom = board.zoom.peek();
    plot.current.setData(columns(now.current.series, now.current.smoothing, isLog), !zoom);
    if (zoom) plot.current.setScale("x", { min: zoom[0], max: zoom[1] });
  }

  // Before anything else can run: a turn to draw that came between would give this plot the series of the next one.
  useLayoutEffect(() => {
    const element = place.current as HTMLDivElement;
    const made = new uPlot(
      options({ element, series, isLog, isSmooth: smoothing > 0, xIs, board, marks: () => now.current.marks, tell: setAt }),
      columns(now.current.series, smoothing, isLog),
      element,
    );
    plot.current = made;
    const size = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height: HEIGHT }));
    size.observe(element);
    const sight = new IntersectionObserver(([entry]) => {
      inSight.current = entry?.isIntersecting ?? false;
      if (inSight.current) draw();
    });
    sight.observe(element);
    return () => {
      clearTimeout(waiting.current);
      size.disconnect();
      sight.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [shape, isLog, smoothing > 0, xIs, isDark.value, board.key]);

  useEffect(draw, [series, smoothing, marks]);
  const zoom = board.zoom.value;
  useEffect(() => {
    if (zoom) plot.current?.setScale("x", { min: zoom[0], max: zoom[1] });
    else if (plot.current) draw();
  }, [zoom]);

  function key(event: KeyboardEvent): void {
    const made = plot.current;
    const xs = made?.data[0];
    if (!made || !xs?.length) return;
    const from = at ?? xs.length - 1;
    const moves: Record<string, number> = { ArrowLeft: from - 1, ArrowRight: from + 1, Home: 0, End: xs.length - 1, PageUp: from - 10, PageDown: from + 10 };
    if (event.key === "Escape") {
      board.zoom.value = null;
      event.preventDefault();
    }
    const to = moves[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const index = Math.max(0, Math.min(xs.length - 1, to));
    // Its third argument, which its types do not have, moves the cursors of the board.
    (made.setCursor as (at: { left: number; top: number }, fire: boolean, publish: boolean) => void)({ left: made.valToPos(xs[index] as number, "x"), top: HEIGHT / 3 }, true, true);
  }

  const xs = plot.current?.data[0];
  const x = at === null ? undefined : xs?.[at];
  return (
    <figure class="chart card" aria-labelledby={id}>
      <figcaption class="chart-head">
        <b id={id} class="cut" title={name}>{name}</b>
        <span class="muted num nowrap">{x === undefined ? "" : xIs === "step" ? `step ${x.toLocaleString("en")}` : duration(x)}</span>
      </figcaption>
      <div ref={place} class="chart-plot" tabIndex={0} role="img" aria-label={`${name}: ${series.map((each) => `${each.label} ${number(each.y.at(-1))}`).join(", ")}. Arrow keys move the cursor.`} onKeyDown={key} />
      <ul class="legend">
        {series.map((each) => (
          <li key={each.label}><i class={`c${each.colour}`} /><span class="cut">{each.label}</span><b class="num">{number(valueAt(each, x))}</b></li>
        ))}
      </ul>
      <Table name={name} series={series} xIs={xIs} />
    </figure>
  );
}

function valueAt(series: Points, x: number | undefined): number | undefined {
  if (x === undefined) return series.y.at(-1);
  const at = lowerBound(series.x, x);
  return series.x[at] === x ? series.y[at] : undefined;
}

/** The same numbers for those who do not see the chart; thinned out. */
function Table({ name, series, xIs }: { name: string; series: readonly Series[]; xIs: string }) {
  const [isOpen, setOpen] = useState(false);
  const [xs = [], ...rest] = isOpen ? aligned(series) : [[]];
  const every = Math.max(1, Math.ceil(xs.length / TABLE_ROWS));
  return (
    <details class="chart-table" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>Numbers</summary>
      {isOpen ? (
        <div class="scroll-x">
          <table class="table">
            <caption class="sr-only">{name}{every > 1 ? `, every ${every}th value` : ""}</caption>
            <thead><tr><th class="num">{xIs}</th>{series.map((each) => <th key={each.label} class="num">{each.label}</th>)}</tr></thead>
            <tbody>
              {xs.map((x, index) => index % every && index !== xs.length - 1 ? null : (
                <tr key={x}><td class="num">{number(x)}</td>{rest.map((column, at) => <td key={at} class="num">{number(column[index] ?? null)}</td>)}</tr>
              ))}
            </tbody>
          </table>
        </div>
      ) : null}
    </details>
  );
}

/** With smoothing each series stands twice: as it is, faint, and smoothed. A logarithm has no place for what is not positive. */
function columns(series: readonly Series[], smoothing: number, isLog: boolean): uPlot.AlignedData {
  const all = smoothing > 0 ? series.flatMap((each) => [each, { ...each, y: smooth(each.y, smoothing) }]) : series;
  const [xs, ...rest] = aligned(all);
  return [xs, ...rest.map((column) => (isLog ? column.map((value) => (value !== null && value > 0 ? value : null)) : column))];
}

interface Making {
  element: HTMLElement;
  series: readonly Series[];
  isLog: boolean;
  isSmooth: boolean;
  xIs: "step" | "seconds";
  board: Board;
  marks: () => readonly { at: number; label: string }[];
  tell: (index: number | null) => void;
}

function options({ element, series, isLog, isSmooth, xIs, board, marks, tell }: Making): uPlot.Options {
  const of = (token: string): string => colour(element, token);
  const [grid, text] = [of("--line"), of("--muted")];
  const axis = { stroke: text, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1, size: 4 }, font: "11px system-ui, sans-serif" };
  const line = (each: Series, isFaint: boolean): uPlot.Series => ({
    label: each.label,
    stroke: of(`--c${each.colour}`),
    width: isFaint ? 1 : 1.75,
    alpha: isFaint ? 0.3 : 1,
    spanGaps: true,
    points: { show: each.x.length < 2, size: 5 },
  });
  return {
    width: element.clientWidth,
    height: HEIGHT,
    legend: { show: false },
    padding: [8, 10, 0, 0],
    scales: { x: { time: false }, y: isLog ? { distr: 3 } : {} },
    axes: [
      { ...axis, size: 28, values: (_, ticks) => ticks.map((tick) => (xIs === "seconds" ? duration(tick) : Number.isInteger(tick) ? tick.toLocaleString("en") : "")) },
      { ...axis, size: 56, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : number(tick))) },
    ],
    cursor: { sync: { key: board.key, setSeries: false }, drag: { x: true, y: false, setScale: false }, points: { size: 6 } },
    series: [{}, ...series.flatMap((each) => (isSmooth ? [line(each, true), line(each, false)] : [line(each, false)]))],
    hooks: {
      setSelect: [
        (plot) => {
          if (plot.select.width < 8) return;
          board.zoom.value = [plot.posToVal(plot.select.left, "x"), plot.posToVal(plot.select.left + plot.select.width, "x")];
          plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        },
      ],
      setCursor: [(plot) => tell(plot.cursor.idx ?? null)],
      ready: [(plot) => plot.over.addEventListener("dblclick", () => (board.zoom.value = null))],
      draw: [(plot) => drawMarks(plot, marks(), text)],
    },
  };
}

function drawMarks(plot: uPlot, marks: readonly { at: number; label: string }[], stroke: string): void {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = stroke;
  ctx.font = `${10 * devicePixelRatio}px system-ui, sans-serif`;
  ctx.setLineDash([4, 4]);
  for (const { at, label } of marks) {
    const x = Math.round(plot.valToPos(at, "x", true));
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    ctx.fillText(label, x + 4, bbox.top + 11 * devicePixelRatio);
  }
  ctx.restore();
}

/** A colour of the tokens as a canvas takes it: resolved for the theme that is shown. */
function colour(element: HTMLElement, token: string): string {
  const probe = document.createElement("i");
  probe.style.color = `var(${token})`;
  element.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}
