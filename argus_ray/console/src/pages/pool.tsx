// The machines: who has which GPUs, what an operator has ordered, and whether the control plane is well. For administrators.
import { useEffect, useState } from "preact/hooks";
import { client, ok, prefix, Unreachable } from "../api/client";
import { queries, useQuery } from "../api/queries";
import { token } from "../api/session";
import { onTask } from "../api/tasks";
import { count, duration } from "../lib/format";
import { ForAdmins } from "../ui/admins";
import { Age, Empty, Loading, Trouble } from "../ui/parts";
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

/** Of /metrics what an operator looks at first. */
const SHOWN: readonly (readonly [string, string, (value: number) => string])[] = [
  ["argus_scheduler_last_tick_age_seconds", "Scheduler's last tick", (value) => `${duration(value)} ago`],
  ["argus_scheduler_tick_seconds", "A tick takes", (value) => `${Math.round(value * 1000)} ms`],
  ["argus_head_file_age_seconds", "head.json written", (value) => `${duration(value)} ago`],
  ["argus_oldest_wait_seconds", "Longest wait", (value) => duration(value)],
];

function Health() {
  const [since] = useState(() => new Date().toISOString());
  const ready = useQuery({ key: ["readyz"], ask: readyParts, every: EVERY_MS });
  const metrics = useQuery({ key: ["metrics"], ask: readMetrics, every: EVERY_MS });
  const parts = Object.entries(ready.data ?? {});
  const facts = SHOWN.flatMap(([name, label, say]) => {
    const value = metrics.data?.get(name);
    return value === undefined ? [] : [[label, say(value)] as const];
  });
  return (
    <section class="card health" aria-label="Control plane">
      {ready.error && !ready.data ? <span class="state" data-look="bad">not reachable</span> : null}
      {parts.map(([part, says]) => <span key={part} class="state" data-look={says === "ok" ? "good" : part === "maintenance" ? "wait" : "bad"}>{part}: {says}</span>)}
      <dl>{facts.map(([label, value]) => <div key={label}><dt>{label}</dt><dd class="num">{value}</dd></div>)}</dl>
      {ready.isFetching && !ready.data ? <span class="muted">looking since <Age time={since} /></span> : null}
    </section>
  );
}

/** What each part says; also of a service that is not ready, whose answer is a 503 that tells it. */
async function readyParts(signal: AbortSignal): Promise<Record<string, string>> {
  const { data, error } = await client.GET("/readyz", { signal });
  const parts = ((data ?? error) as { parts?: Record<string, string> } | undefined)?.parts;
  if (!parts) throw new Unreachable();
  return parts;
}

async function readMetrics(signal: AbortSignal): Promise<Map<string, number>> {
  const answer = await fetch(`${prefix}/metrics`, { headers: { Authorization: `Bearer ${token.peek()}` }, signal, cache: "no-store" });
  if (!answer.ok) throw new Unreachable();
  const found = new Map<string, number>();
  for (const line of (await answer.text()).split("\n")) {
    const [name = "", value = ""] = line.split(" ");
    if (name && !name.startsWith("#") && !name.includes("{")) found.set(name, Number(value));
  }
  return found;
}
