// What waits, in the order of the queue, with when it may start; and what runs. Of others a user sees counts alone.
import { useEffect } from "preact/hooks";
import { client, ok } from "../api/client";
import { queries, useQuery } from "../api/queries";
import { isAdmin } from "../api/session";
import { followProgress } from "../api/stream";
import { learn, onTask, taskSignal, type TaskSummary } from "../api/tasks";
import { count, duration, gang, moment, second, shortId } from "../lib/format";
import { href } from "../lib/route";
import { Age, Bar, Empty, Loading, Trouble } from "../ui/parts";
import { StateBadge } from "../ui/state";
import { startWords } from "../ui/start";

/** Changes that come together are one look, in milliseconds. */
const GATHER_MS = 400;

export function Queue() {
  const everyone = isAdmin.value;
  const { data, error, refetch } = useQuery({
    key: ["queue", everyone],
    ask: async (signal) => {
      const found = await ok(everyone ? client.GET("/api/v2/admin/queue", { signal }) : client.GET("/api/v2/queue", { signal }));
      [...found.pending, ...found.running].forEach(learn);
      return found;
    },
    every: 10_000,
  });
  const estimates = useQuery({ key: ["estimates"], ask: (signal) => ok(client.GET("/api/v2/estimates", { signal })), every: 60_000 });
  useEffect(() => {
    let timer: number | undefined;
    const stop = onTask(() => {
      clearTimeout(timer);
      timer = setTimeout(() => void queries.invalidateQueries({ queryKey: ["queue"] }), GATHER_MS);
    });
    return () => {
      clearTimeout(timer);
      stop();
    };
  }, []);
  const running = data?.running.map((task) => task.task_id) ?? [];
  useEffect(() => followProgress(running), [running.join()]);
  const counts = useQuery({ key: ["queue", "counts"], ask: (signal) => ok(client.GET("/api/v2/queue:counts", { signal })), every: 10_000, enabled: !everyone });
  const last = estimates.data?.last;
  return (
    <>
      <div class="head">
        <h1 class="grow">Queue</h1>
        {counts.data ? <span class="muted">others: {count(counts.data.others.waiting, "task waits", "tasks wait")}, {count(counts.data.others.active, "runs", "run")} on {count(counts.data.others.gpus, "GPU")}</span> : null}
        {last?.of ? <span class="muted">{last.right} of the last {last.of} start ranges were right</span> : null}
      </div>
      {error ? <Trouble error={error} again={() => void refetch()} /> : null}
      {!data ? (error ? null : <div class="card"><Loading lines={6} /></div>) : (
        <>
          <section class="card" aria-labelledby="waiting">
            <header><h2 id="waiting">Waiting</h2><span class="muted">{count(data.pending.length, "task")}{everyone ? "" : " of yours"}</span></header>
            {data.pending.length ? <Waiting tasks={data.pending} withUser={everyone} /> : <Empty>{everyone ? "Nothing waits." : "None of your tasks waits."}</Empty>}
          </section>
          <section class="card" aria-labelledby="running">
            <header><h2 id="running">Running</h2><span class="muted">{count(data.running.length, "task")}{everyone ? "" : " of yours"}</span></header>
            {data.running.length ? <Running tasks={data.running} withUser={everyone} /> : <Empty>{everyone ? "Nothing runs." : "None of your tasks runs."}</Empty>}
          </section>
        </>
      )}
    </>
  );
}

function Waiting({ tasks, withUser }: { tasks: readonly TaskSummary[]; withUser: boolean }) {
  void second.value;
  const own = tasks.length;
  const ahead = (tasks[0]?.position ?? 1) - 1;
  return (
    <>
      {!withUser && own && ahead > 0 ? <p class="in muted">{count(ahead, "task")} of others {ahead === 1 ? "stands" : "stand"} before your first one.</p> : null}
      <div class="scroll-x">
        <table class="table">
          <thead><tr><th class="num">Place</th><th>Task</th>{withUser ? <th>User</th> : null}<th>Kind</th><th>State</th><th class="num">GPUs</th><th class="num">Waits</th><th>May start</th><th>Why it waits</th></tr></thead>
          <tbody>
            {tasks.map((task) => (
              <tr key={task.task_id}>
                <td class="num">{task.position ?? ""}</td>
                <td><a class="mono" href={href("task", task.task_id, "explain")} title={task.task_id}>{shortId(task.task_id)}</a></td>
                {withUser ? <td>{task.user_id}</td> : null}
                <td>{task.workload}</td>
                <td><StateBadge state={task.state} /></td>
                <td class="num">{gang(task.gang)}</td>
                <td class="num"><Age time={task.created_at} /></td>
                <td class="nowrap" title={task.start && "earliest" in task.start ? `${moment(task.start.earliest)} to ${moment(task.start.latest)}` : undefined}>{startWords(task.start)}</td>
                <td class="why">{task.reason}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </>
  );
}

function Running({ tasks, withUser }: { tasks: readonly TaskSummary[]; withUser: boolean }) {
  return (
    <div class="scroll-x">
      <table class="table">
        <thead><tr><th>Task</th>{withUser ? <th>User</th> : null}<th>Kind</th><th>State</th><th class="num">GPUs</th><th class="num">Runs</th><th class="wide-column">Progress</th><th class="num">Left</th></tr></thead>
        <tbody>{tasks.map((task) => <RunningRow key={task.task_id} task={taskSignal(task.task_id).value ?? task} withUser={withUser} />)}</tbody>
      </table>
    </div>
  );
}

function RunningRow({ task, withUser }: { task: TaskSummary; withUser: boolean }) {
  const { progress } = task;
  return (
    <tr>
      <td><a class="mono" href={href("task", task.task_id)} title={task.task_id}>{shortId(task.task_id)}</a></td>
      {withUser ? <td>{task.user_id}</td> : null}
      <td>{task.workload}</td>
      <td><StateBadge state={task.state} />{task.stalled_since ? <span class="muted"> stalled</span> : null}</td>
      <td class="num">{gang(task.gang)}</td>
      <td class="num"><Age time={task.started_at} /></td>
      <td>{progress ? <span class="c-progress"><Bar part={progress.total_steps ? progress.step / progress.total_steps : 0} label={`Steps of ${shortId(task.task_id)}`} /><span class="num muted nowrap">{progress.step.toLocaleString("en")}{progress.total_steps ? `/${progress.total_steps.toLocaleString("en")}` : ""}</span></span> : <span class="muted">no step yet</span>}</td>
      <td class="num">{duration(progress?.seconds_left)}</td>
    </tr>
  );
}
