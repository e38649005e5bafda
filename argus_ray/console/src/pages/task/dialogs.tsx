// What changes a task, each asked once more with what comes of it.
import { useMemo, useState } from "preact/hooks";
import { client, ok } from "../../api/client";
import { queries } from "../../api/queries";
import { learn, type Task } from "../../api/tasks";
import { count, shortId } from "../../lib/format";
import { go, href } from "../../lib/route";
import { Dialog, Loading, Trouble } from "../../ui/parts";
import { toast } from "../../ui/toasts";
import { useCheckpoints } from "./data";

interface Props {
  task: Task;
  close: () => void;
}

/** One call at a time, and what it was refused with. */
function useAct(close: () => void) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  async function act(what: () => Promise<void>): Promise<void> {
    setBusy(true);
    setError(null);
    try {
      await what();
      close();
    } catch (problem) {
      setError(problem);
      setBusy(false);
    }
  }
  // One for each time the window opens: a press after a broken connection asks for the same once more.
  const key = useMemo(() => crypto.getRandomValues(new Uint32Array(4)).join("-"), []);
  return { busy, error, act, key };
}

export function CancelDialog({ task, close }: Props) {
  const { busy, error, act } = useAct(close);
  const isRunning = task.state === "RUNNING" || task.state === "SUBMITTED" || task.state === "SUBMITTING";
  const cancel = (): Promise<void> => act(async () => {
    learn(await ok(client.POST("/api/v2/tasks/{task_id}:cancel", { params: { path: { task_id: task.task_id } } })));
    void queries.invalidateQueries({ queryKey: ["task", task.task_id] });
    toast(`${shortId(task.task_id)} is canceled.`);
  });
  return (
    <Dialog title={`Cancel ${task.workload} ${shortId(task.task_id)}?`} close={close}>
      <p>{isRunning ? `Its program is stopped, and ${task.gang.gpus ? `${count(task.gang.gpus, "GPU")} become free` : "its place becomes free"}.` : "It leaves the queue, and never starts."} That is final.</p>
      <p class="muted">{isRunning ? "Checkpoints, curves and the log stay: you can resume from the newest checkpoint as a new task." : "It can be submitted again as a new task, at the end of the queue."}</p>
      {error ? <Trouble error={error} /> : null}
      <footer>
        <button class="button" type="button" onClick={close}>{isRunning ? "Let it run" : "Leave it"}</button>
        <button class="button danger" type="button" disabled={busy} onClick={() => void cancel()}>Cancel the task</button>
      </footer>
    </Dialog>
  );
}

export function ResubmitDialog({ task, resume, close }: Props & { resume: boolean }) {
  const { busy, error, act, key } = useAct(close);
  const { data: checkpoints, error: unseen } = useCheckpoints(task, resume);
  const newest = checkpoints?.[0];
  const submit = (): Promise<void> => act(async () => {
    const answer = await ok(client.POST("/api/v2/tasks/{task_id}:resubmit", {
      params: { path: { task_id: task.task_id }, header: { "Idempotency-Key": key } },
      body: { resume },
    }));
    void queries.invalidateQueries({ queryKey: ["successors", task.task_id] });
    toast(`${shortId(answer.task_id)} is in the queue${answer.warnings.length ? `, with ${count(answer.warnings.length, "warning")}` : ""}.`);
    go(href("task", answer.task_id));
  });
  return (
    <Dialog title={`${resume ? "Resume" : "Resubmit"} ${task.workload} ${shortId(task.task_id)}`} close={close}>
      <p>{resume ? "A new task with the same TaskSpec and the same settings goes on from the newest complete checkpoint." : "A new task with the same TaskSpec starts from the beginning, with what its presets and the rules come to today."} It stands at the end of the queue.</p>
      {!resume ? null : checkpoints === undefined ? (unseen ? <Trouble error={unseen} /> : <Loading lines={1} />) : newest ? (
        <p class="note">The newest checkpoint here is <code>global_step_{newest.step}</code> of attempt {newest.attempt}. If it is not complete, the one before counts.</p>
      ) : <p class="note" data-look="wait">No checkpoint of its own is here. If it was itself to resume from one, that counts; else it starts from the beginning, and its events say so.</p>}
      {error ? <Trouble error={error} /> : null}
      <footer>
        <button class="button" type="button" onClick={close}>Leave it</button>
        <button class="button primary" type="button" disabled={busy} onClick={() => void submit()}>{resume ? "Resume" : "Resubmit"} as a new task</button>
      </footer>
    </Dialog>
  );
}

export function ExportDialog({ task, close }: Props) {
  const { busy, error, act, key } = useAct(close);
  const { data: checkpoints } = useCheckpoints(task, true);
  const [step, setStep] = useState("");
  const [part, setPart] = useState<"actor" | "critic">("actor");
  const steps = [...new Set(checkpoints?.map((each) => each.step))].sort((one, other) => other - one);
  const submit = (): Promise<void> => act(async () => {
    const answer = await ok(client.POST("/api/v2/tasks/{task_id}:export", {
      params: { path: { task_id: task.task_id }, header: { "Idempotency-Key": `${key}-${step}-${part}` } },
      body: { ...(step ? { step: Number(step) } : {}), ...(task.workload === "ppo" ? { part } : {}) },
    }));
    void queries.invalidateQueries({ queryKey: ["task", task.task_id] });
    toast(`${shortId(answer.task_id)} makes a Hugging Face folder of step ${answer.step}.`);
    go(href("task", answer.task_id));
  });
  return (
    <Dialog title={`Export ${task.workload} ${shortId(task.task_id)}`} close={close}>
      <p>A task of its own makes a Hugging Face folder of a complete checkpoint. It takes 2 CPUs and no GPU; this task goes on as it is.</p>
      <div class="field">
        <label for="export-step">Checkpoint</label>
        <select id="export-step" class="input" value={step} onChange={(event) => setStep(event.currentTarget.value)}>
          <option value="">The newest complete one</option>
          {steps.map((each) => <option key={each} value={String(each)}>Step {each.toLocaleString("en")}</option>)}
        </select>
        {checkpoints?.length === 0 ? <p class="hint">No checkpoint is here yet.</p> : null}
      </div>
      {task.workload === "ppo" ? (
        <div class="field">
          <label for="export-part">Model</label>
          <select id="export-part" class="input" value={part} onChange={(event) => setPart(event.currentTarget.value as "actor" | "critic")}>
            <option value="actor">actor</option>
            <option value="critic">critic</option>
          </select>
        </div>
      ) : null}
      {error ? <Trouble error={error} /> : null}
      <footer>
        <button class="button" type="button" onClick={close}>Leave it</button>
        <button class="button primary" type="button" disabled={busy} onClick={() => void submit()}>Export</button>
      </footer>
    </Dialog>
  );
}
