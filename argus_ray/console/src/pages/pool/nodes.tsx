import { useState } from "preact/hooks";
import { client, ok, type Schemas, words } from "../../api/client";
import { queries } from "../../api/queries";
import { count, moment, number, shortId } from "../../lib/format";
import { href } from "../../lib/route";
import { Age, Dialog } from "../../ui/parts";
import { toast } from "../../ui/toasts";

type Node = Schemas["NodeOut"];
type Cordon = Schemas["CordonOut"];

export function Nodes({ nodes, away }: { nodes: readonly Node[]; away: readonly Cordon[] }) {
  const [order, setOrder] = useState<{ node: Node; kind: "cordon" | "drain" } | null>(null);
  const colours = coloursOf(nodes);
  return (
    <section class="card" aria-label="Nodes">
      <ul class="users-legend">{[...colours].map(([user, colour]) => <li key={user}><i class={`swatch c${colour}`} />{user}</li>)}<li><i class="swatch free" />free</li></ul>
      <div class="scroll-x">
        <table class="table">
          <thead><tr><th>Node</th><th>GPUs</th><th class="num">Free</th><th class="num">CPUs free</th><th>State</th><th>Tasks</th><th><span class="sr-only">Orders</span></th></tr></thead>
          <tbody>
            {nodes.map((node) => (
              <tr key={node.node_id}>
                <td><b>{node.hostname || node.ip}</b>{node.is_head ? <span class="muted"> head</span> : null}<div class="muted mono">{node.ip}</div></td>
                <td><Gpus node={node} colours={colours} /></td>
                <td class="num">{number(node.gpus_free)}/{number(node.gpus_total)}</td>
                <td class="num">{number(node.cpus_free)}/{number(node.cpus_total)}</td>
                <td><NodeState node={node} /></td>
                <td class="node-tasks">{node.tasks.map((task) => <a key={task.task_id} class="mono" href={href("task", task.task_id)} title={`${task.task_id}: ${count(task.gpus, "GPU")} of ${task.user_id}`}>{shortId(task.task_id)}</a>)}</td>
                <td>
                  <span class="buttons">
                    {node.cordon ? <button class="button small" type="button" onClick={() => void uncordon(nameOf(node, nodes))}>Uncordon</button> : <button class="button small" type="button" onClick={() => setOrder({ node, kind: "cordon" })}>Cordon…</button>}
                    {node.cordon?.state === "draining" || node.cordon?.state === "drained" ? null : <button class="button small" type="button" onClick={() => setOrder({ node, kind: "drain" })}>Drain…</button>}
                  </span>
                </td>
              </tr>
            ))}
            {away.map((cordon) => (
              <tr key={cordon.machine}>
                <td><b>{cordon.machine}</b><div class="muted">away</div></td><td colSpan={3} class="muted">not in the pool now</td>
                <td><CordonWords cordon={cordon} /></td><td />
                <td><button class="button small" type="button" onClick={() => void uncordon(cordon.machine)}>Uncordon</button></td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {order ? <Order {...order} name={nameOf(order.node, nodes)} close={() => setOrder(null)} /> : null}
    </section>
  );
}

/** By which an order names it: what it keeps when it rejoins, if it has that for itself. */
function nameOf(node: Node, nodes: readonly Node[]): string {
  const own = (one: (each: Node) => string): boolean => one(node) !== "" && nodes.filter((each) => one(each) === one(node)).length === 1;
  if (own((each) => each.hostname)) return node.hostname;
  return own((each) => each.ip) ? node.ip : node.node_id;
}

/** Each user keeps a colour; past eight they share. */
function coloursOf(nodes: readonly Node[]): Map<string, number> {
  const users = [...new Set(nodes.flatMap((node) => node.tasks.map((task) => task.user_id)))].sort();
  return new Map(users.map((user, index) => [user, (index % 8) + 1]));
}

function Gpus({ node, colours }: { node: Node; colours: ReadonlyMap<string, number> }) {
  const held = node.tasks.flatMap((task) => Array.from({ length: task.gpus }, () => task));
  const all = Array.from({ length: Math.max(Math.round(node.gpus_total), held.length) }, (_, index) => held[index]);
  const sums = node.tasks.map((task) => `${task.user_id} ${task.gpus}`);
  return (
    <span class="gpus" role="img" aria-label={`${node.hostname || node.ip}: ${[...sums, `free ${number(node.gpus_free)}`].join(", ")}`}>
      {all.map((task, index) => <i key={index} class={task ? `swatch c${colours.get(task.user_id) ?? 1}` : "swatch free"} title={task ? `${task.user_id}, ${shortId(task.task_id)}` : "free"} />)}
    </span>
  );
}

function NodeState({ node }: { node: Node }) {
  if (node.cordon) return <CordonWords cordon={node.cordon} />;
  return node.barred ? <span class="state" data-look="wait" title={node.barred}>no gangs now</span> : <span class="state" data-look="good">takes gangs</span>;
}

function CordonWords({ cordon }: { cordon: Cordon }) {
  return (
    <>
      <span class="state" data-look={cordon.state === "drained" ? "off" : "wait"}>{cordon.state}</span>
      <div class="muted">{cordon.reason || "no reason given"}; {cordon.by}, <Age time={cordon.since} suffix=" ago" />{cordon.deadline ? `; what runs is stopped ${moment(cordon.deadline)}` : ""}</div>
    </>
  );
}

async function uncordon(node: string): Promise<void> {
  try {
    await ok(client.POST("/api/v2/nodes/{node}:uncordon", { params: { path: { node } } }));
    toast(`${node} takes gangs again.`);
  } catch (error) {
    toast(words(error), "bad");
  }
  void queries.invalidateQueries({ queryKey: ["nodes"] });
}

function Order({ node, name, kind, close }: { node: Node; name: string; kind: "cordon" | "drain"; close: () => void }) {
  const [reason, setReason] = useState("");
  const [hours, setHours] = useState("1");
  const [busy, setBusy] = useState(false);
  const path = { node: name };

  async function give(event: Event): Promise<void> {
    event.preventDefault();
    setBusy(true);
    try {
      if (kind === "cordon") await ok(client.POST("/api/v2/nodes/{node}:cordon", { params: { path }, body: { reason } }));
      else await ok(client.POST("/api/v2/nodes/{node}:drain", { params: { path }, body: { reason, ...(hours ? { deadline_s: Math.round(Number(hours) * 3600) } : {}) } }));
      toast(kind === "cordon" ? `${name} is cordoned.` : `${name} drains.`);
      void queries.invalidateQueries({ queryKey: ["nodes"] });
      close();
    } catch (error) {
      toast(words(error), "bad");
      setBusy(false);
    }
  }

  return (
    <Dialog title={kind === "cordon" ? `Cordon ${name}` : `Drain ${name}`} close={close}>
      <form class="order" onSubmit={(event) => void give(event)}>
        <p>{kind === "cordon" ? "It gets no new gang. What runs goes on." : `It gets no new gang. ${node.tasks.length ? `${count(node.tasks.length, "task")} ${node.tasks.length === 1 ? "runs" : "run"} there; what still runs at the deadline is stopped, goes back to its place in the queue and resumes from its newest checkpoint.` : "Nothing runs there."}`}</p>
        <div class="field"><label for="reason">Reason</label><input id="reason" class="input" maxLength={500} value={reason} onInput={(event) => setReason(event.currentTarget.value)} /><p class="hint">Shown to whoever waits.</p></div>
        {kind === "drain" ? <div class="field"><label for="hours">Deadline, hours from now</label><input id="hours" class="input" type="number" min="0" step="any" value={hours} onInput={(event) => setHours(event.currentTarget.value)} /><p class="hint">Empty: none, all runs to its end.</p></div> : null}
        <footer><button class="button" type="button" onClick={close}>Leave it</button><button class="button primary" type="submit" disabled={busy}>{kind === "cordon" ? "Cordon" : "Drain"}</button></footer>
      </form>
    </Dialog>
  );
}
