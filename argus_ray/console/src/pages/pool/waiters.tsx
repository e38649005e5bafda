import { client, ok } from "../../api/client";
import { useQuery } from "../../api/queries";
import { count, gang, shortId } from "../../lib/format";
import { href } from "../../lib/route";
import { Age, Empty, Loading } from "../../ui/parts";
import { startWords } from "../../ui/start";

const SHOWN = 20;

/** The head of the line, and why each waits. */
export function Waiters() {
  const { data } = useQuery({ key: ["queue", true], ask: (signal) => ok(client.GET("/api/v2/admin/queue", { signal })), every: 10_000 });
  const waiting = data?.pending ?? [];
  return (
    <section class="card" aria-labelledby="waiters">
      <header><h2 id="waiters">Who waits, and why</h2>{data ? <span class="muted">{count(waiting.length, "task")}</span> : null}</header>
      {!data ? <Loading lines={3} /> : waiting.length ? (
        <div class="scroll-x">
          <table class="table">
            <thead><tr><th class="num">Place</th><th>Task</th><th>User</th><th class="num">GPUs</th><th class="num">Waits</th><th>May start</th><th>Why</th></tr></thead>
            <tbody>
              {waiting.slice(0, SHOWN).map((task) => (
                <tr key={task.task_id}>
                  <td class="num">{task.position ?? ""}</td><td><a class="mono" href={href("task", task.task_id, "explain")}>{shortId(task.task_id)}</a></td><td>{task.user_id}</td>
                  <td class="num">{gang(task.gang)}</td><td class="num"><Age time={task.created_at} /></td><td class="nowrap">{startWords(task.start)}</td><td class="why">{task.reason}</td>
                </tr>
              ))}
            </tbody>
          </table>
          {waiting.length > SHOWN ? <p class="in"><a href={href("queue")}>All {waiting.length.toLocaleString("en")}</a></p> : null}
        </div>
      ) : <Empty>Nothing waits.</Empty>}
    </section>
  );
}
