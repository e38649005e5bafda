// The machines: who has which GPUs, what an operator has ordered, and whether the control plane is well. For administrators.
import { useEffect } from "preact/hooks";
import { client, ok } from "../api/client";
import { queries, useQuery } from "../api/queries";
import { onTask } from "../api/tasks";
import { bytes, count, duration } from "../lib/format";
import { ForAdmins } from "../ui/admins";
import { Empty, Loading, Trouble } from "../ui/parts";
import { MaintenanceSwitch } from "./pool/maintenance";
import { Nodes } from "./pool/nodes";
import { Waiters } from "./pool/waiters";

const EVERY_MS = 5_000;

export function Pool() {
  return <ForAdmins><PoolPage /></ForAdmins>;
}

function PoolPage() {
  const nodes = useQuery({ key: ["nodes"], ask: (signal) => ok(client.GET("/api/v2/nodes", { signal })), every: EVERY_MS });
  useEffect(() => {
    let timer: number | undefined;
    const stop = onTask(() => {
      clearTimeout(timer);
      timer = setTimeout(() => void queries.invalidateQueries({ queryKey: ["nodes"] }), 400);
    });
    return () => {
      clearTimeout(timer);
      stop();
    };
  }, []);
  const all = nodes.data?.nodes ?? [];
  const total = all.reduce((sum, node) => sum + node.gpus_total, 0);
  const free = all.reduce((sum, node) => sum + node.gpus_free, 0);
  return (
    <>
      <div class="head">
        <h1 class="grow">Pool</h1>
        {nodes.data ? <span class="muted num">{count(all.length, "node")}, {count(total, "GPU")}, {free.toLocaleString("en")} free</span> : null}
      </div>
      <Health />
      {nodes.error ? <Trouble error={nodes.error} again={() => void nodes.refetch()} /> : null}
      {nodes.data ? (all.length || nodes.data.away.length ? <Nodes nodes={all} away={nodes.data.away} /> : <div class="card"><Empty>No node has joined yet.</Empty></div>) : nodes.error ? null : <div class="card"><Loading lines={6} /></div>}
      <Waiters />
      <MaintenanceSwitch />
    </>
  );
}

/** Whether the control plane is well: each part in a word, and what an operator looks at first. */
function Health() {
  const { data, error, refetch } = useQuery({ key: ["cluster"], ask: (signal) => ok(client.GET("/api/v2/cluster", { signal })), every: EVERY_MS });
  if (!data) return error ? <Trouble error={error} again={() => void refetch()} /> : <div class="card"><Loading lines={1} /></div>;
  const { head_file: head, shared_disk: disk } = data;
  const facts: [string, string | null, boolean][] = [
    ["Scheduler's last tick", ago(data.last_tick_age_s), (data.last_tick_age_s ?? 0) > 60],
    ["head.json written", ago(head?.age_s), (head?.age_s ?? 0) > (head?.ttl_s ?? Infinity) / 2],
    ["Longest wait", data.waiting?.tasks ? duration(data.waiting.oldest_s) : null, false],
    ["Shared disk free", disk ? `${bytes(disk.free)} of ${bytes(disk.size)}` : null, disk !== null && disk.free < disk.size / 10],
    ["Newest backup", ago(data.backup_age_s), false],
  ];
  return (
    <section class="card health" aria-label="Control plane">
      {Object.entries(data.parts).map(([part, says]) => <span key={part} class="state" data-look={says === "ok" ? "good" : part === "maintenance" ? "wait" : "bad"}>{part}: {says}</span>)}
      <dl>{facts.map(([label, value, isBad]) => value === null ? null : <div key={label}><dt>{label}</dt><dd class={isBad ? "num wrong" : "num"}>{isBad ? `! ${value}` : value}</dd></div>)}</dl>
    </section>
  );
}

const ago = (seconds: number | null | undefined): string | null => (seconds === null || seconds === undefined ? null : `${duration(seconds)} ago`);
