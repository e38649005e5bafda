// Every change of a task with its cause, oldest first, a page at a time.
import { useState } from "preact/hooks";
import { client, ok, type Schemas } from "../../api/client";
import { useQuery } from "../../api/queries";
import { ENDED, type Task } from "../../api/tasks";
import { moment } from "../../lib/format";
import { oneLine } from "../../lib/safe";
import { Loading, Trouble } from "../../ui/parts";
import { StateBadge } from "../../ui/state";

const PAGE = 100;

export function Events({ task }: { task: Task }) {
  const [pages, setPages] = useState(1);
  const { data, error, refetch } = useQuery({
    key: ["events", task.task_id, pages],
    ask: async (signal) => {
      const events: Schemas["EventOut"][] = [];
      let cursor: string | null = null;
      for (let page = 0; page < pages && (page === 0 || cursor); page++) {
        const answer: Schemas["EventsOut"] = await ok(client.GET("/api/v2/tasks/{task_id}/events", { params: { path: { task_id: task.task_id }, query: { limit: PAGE, ...(cursor ? { cursor } : {}) } }, signal }));
        events.push(...answer.events);
        cursor = answer.next_cursor;
      }
      return { events, hasMore: cursor !== null };
    },
    every: ENDED.has(task.state) ? false : 10_000,
    keepPrevious: true,
  });
  if (error && !data) return <Trouble error={error} again={() => void refetch()} />;
  if (!data) return <div class="card"><Loading lines={6} /></div>;
  return (
    <section class="card" aria-label="Events">
      <div class="scroll-x" tabIndex={0} role="group" aria-label="Table of events"><table class="table events">
        <thead><tr><th scope="col">Time</th><th scope="col">Change</th><th scope="col">Cause</th><th scope="col">Message</th></tr></thead>
        <tbody>
          {data.events.map((each) => (
            <tr key={each.event_id}>
              <td class="nowrap"><time dateTime={each.at}>{moment(each.at)}</time></td>
              <td class="nowrap">{each.new_state && each.new_state !== each.old_state ? <>{each.old_state ? <><StateBadge state={each.old_state} /> → </> : null}<StateBadge state={each.new_state} /></> : <span class="muted">{oneLine(each.kind)}</span>}</td>
              <td class="muted"><bdi>{oneLine(each.cause ?? "")}</bdi></td>
              <td class="events-message"><bdi>{oneLine(each.message)}</bdi></td>
            </tr>
          ))}
        </tbody>
      </table></div>
      {data.hasMore ? <p class="in"><button class="button" type="button" onClick={() => setPages(pages + 1)}>Later events</button></p> : null}
    </section>
  );
}
