import { useCurves } from "../../api/curves";
import type { Task } from "../../api/tasks";
import { shortId } from "../../lib/format";
import { route, setQuery } from "../../lib/route";
import { Loading, Trouble } from "../../ui/parts";
import { CurveBoard } from "../curves/board";

/** The curves of one task. Which are shown beside the main ones stands in the address. */
export function Curves({ task }: { task: Task }) {
  const names = route.value.query.getAll("name");
  const { tasks, error } = useCurves([task.task_id], names);
  const problem = tasks?.get(task.task_id)?.problem;
  return (
    <>
      {error ? <Trouble error={error} /> : null}
      {problem ? <p class="note" data-look="wait" role="alert">{problem.detail}</p> : null}
      {tasks ? (
        <CurveBoard runs={[{ id: task.task_id, label: shortId(task.task_id), colour: 1 }]} curves={tasks} names={names} setNames={(next) => setQuery({ name: next })} />
      ) : error ? null : <div class="card"><Loading lines={6} /></div>}
    </>
  );
}
