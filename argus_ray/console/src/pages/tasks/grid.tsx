// The rows in sight, for the mouse and for the keyboard: j and k or arrows, Enter, x or space to choose.
import { useEffect, useRef, useState } from "preact/hooks";
import { isAdmin } from "../../api/session";
import { followProgress } from "../../api/stream";
import { ENDED, taskSignal, type TaskSummary } from "../../api/tasks";
import { duration, gang, number, second, shortId } from "../../lib/format";
import { go, href } from "../../lib/route";
import { isNarrow } from "../../ui/media";
import { Age, Bar, Sparkline } from "../../ui/parts";
import { lookOf, StateBadge } from "../../ui/state";
import { useRows } from "../../ui/virtual";
import { startWords } from "../../ui/start";
import type { TaskList } from "./list";
import { type Spark, useSparklines } from "./sparklines";

const ROW = 38;
const CARD = 66;

interface Props {
  list: TaskList;
  chosen: ReadonlySet<string>;
  choose: (ids: ReadonlySet<string>) => void;
}

export function TaskGrid({ list, chosen, choose }: Props) {
  const scroller = useRef<HTMLDivElement>(null);
  const rows = list.rows ?? [];
  const total = rows.length + (list.hasMore ? 1 : 0);
  const view = useRows(scroller, total, isNarrow.value ? CARD : ROW);
  const [at, setAt] = useState<string | null>(null);
  const last = view.items.at(-1)?.index ?? 0;

  useEffect(() => {
    if (list.hasMore && last >= rows.length - 30) list.more();
  }, [last, rows.length, list.hasMore]);

  const seen = view.items.map((item) => rows[item.index]).filter((id) => id !== undefined);
  const running = seen.filter((id) => taskSignal(id).value?.state === "RUNNING");
  useEffect(() => followProgress(running), [running.join()]);
  const sparks = useSparklines(seen);

  function toggle(id: string): void {
    const next = new Set(chosen);
    if (!next.delete(id)) next.add(id);
    choose(next);
  }

  function key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const now = at === null ? -1 : rows.indexOf(at);
    const moves: Record<string, number> = { j: now + 1, ArrowDown: now + 1, k: now - 1, ArrowUp: now - 1, Home: 0, End: rows.length - 1, PageDown: now + 15, PageUp: now - 15 };
    const to = moves[event.key];
    if (to !== undefined) {
      const index = Math.max(0, Math.min(rows.length - 1, to));
      setAt(rows[index] ?? null);
      view.show(index);
    } else if (event.key === "Enter" && at && event.target === scroller.current) go(href("task", at));
    else if ((event.key === "x" || event.key === " ") && at && event.target === scroller.current) toggle(at);
    else if (event.key === "Escape") choose(new Set());
    else return;
    event.preventDefault();
  }

  const columns = isAdmin.value ? "columns with-user" : "columns";
  return (
    <div class="card tasks">
      <div class={`${columns} tasks-head`} aria-hidden="true">
        <span /><span>Id</span>{isAdmin.value ? <span>User</span> : null}<span>Kind</span><span>State</span><span class="right">GPUs</span><span class="right">Age</span><span>Progress</span><span>Left</span><span>Score or loss</span>
      </div>
      <div ref={scroller} class="tasks-rows" role="grid" aria-label="Tasks" aria-rowcount={list.hasMore ? -1 : rows.length} aria-multiselectable tabIndex={0} onKeyDown={key}
        aria-activedescendant={at ? `row-${at}` : undefined} onFocus={() => { if (at === null) setAt(rows[0] ?? null); }}>
        <div style={{ height: `${view.height}px`, position: "relative" }} role="presentation">
          {view.items.map((item) => {
            const id = rows[item.index];
            const place = { transform: `translateY(${item.start}px)`, height: `${item.size}px` };
            return id === undefined ? <div key="more" class="tasks-row" style={place} role="presentation"><span class="loading grow" /></div> : (
              <Row key={id} id={id} index={item.index} style={place} columns={columns} isAt={id === at} isChosen={chosen.has(id)} toggle={() => toggle(id)} spark={sparks.get(id)} />
            );
          })}
        </div>
      </div>
    </div>
  );
}

interface RowProps {
  id: string;
  index: number;
  style: Record<string, string>;
  columns: string;
  isAt: boolean;
  isChosen: boolean;
  toggle: () => void;
  spark: Spark | undefined;
}

function Row({ id, index, style, columns, isAt, isChosen, toggle, spark }: RowProps) {
  const task = taskSignal(id).value;
  if (!task) return null;
  return (
    <div id={`row-${id}`} class={`tasks-row ${columns}`} style={style} role="row" aria-rowindex={index + 1} aria-selected={isChosen} data-at={isAt || undefined}
      onClick={(event) => { if (!(event.target as HTMLElement).closest("a,input,label")) go(href("task", id)); }}>
      <span role="gridcell" class="c-choose"><input type="checkbox" tabIndex={-1} checked={isChosen} aria-label={`Choose ${shortId(id)}`} onChange={toggle} /></span>
      <span role="gridcell" class="c-id"><a class="mono" href={href("task", id)} title={id} tabIndex={-1}>{shortId(id)}</a></span>
      {isAdmin.value ? <span role="gridcell" class="c-user cut" title={task.user_id}>{task.user_id}</span> : null}
      <span role="gridcell" class="c-kind">{task.workload}</span>
      <span role="gridcell" class="c-state"><StateBadge state={task.state} />{task.stalled_since ? <span class="state" data-look="wait" title={task.stalled_why ?? "It makes no steps"}>stalled</span> : null}</span>
      <span role="gridcell" class="c-gpus num right">{gang(task.gang)}</span>
      <span role="gridcell" class="c-age num right"><Age time={task.created_at} /></span>
      <span role="gridcell" class="c-progress"><Steps task={task} /></span>
      <span role="gridcell" class="c-left cut"><Left task={task} /></span>
      <span role="gridcell" class="c-score" title={spark?.name ?? task.progress?.headline?.name}><span class="num">{number(task.progress?.headline?.value ?? spark?.values.at(-1))}</span>{spark ? <Sparkline values={spark.values} /> : null}</span>
    </div>
  );
}

function Steps({ task }: { task: TaskSummary }) {
  const progress = task.progress;
  if (!progress) return null;
  const part = progress.total_steps ? progress.step / progress.total_steps : 0;
  const look = task.state === "RUNNING" ? "run" : lookOf(task.state);
  return (
    <>
      <Bar part={part} look={look} label={`Steps of ${shortId(task.task_id)}`} />
      <span class="num nowrap muted">{progress.step.toLocaleString("en")}{progress.total_steps ? `/${progress.total_steps.toLocaleString("en")}` : ""}</span>
    </>
  );
}

function Left({ task }: { task: TaskSummary }) {
  void second.value;
  if (task.state === "RUNNING") return <span class="num">{duration(task.progress?.seconds_left)}</span>;
  if (ENDED.has(task.state)) return <span class="muted cut" title={task.reason ?? undefined}>{task.state === "SUCCEEDED" ? "" : task.reason}</span>;
  return <span title={task.reason ?? undefined}>{startWords(task.start)}</span>;
}
