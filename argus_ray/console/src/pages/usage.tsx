// What was used: everybody's own sums and limits; for administrators the pool's, by day.
import { client, ok, type Schemas } from "../api/client";
import { useQuery } from "../api/queries";
import { isAdmin } from "../api/session";
import { gpuHours } from "../lib/format";
import { Bar, Loading, Trouble } from "../ui/parts";
import { PoolUsage } from "./usage/pool";

export function Usage() {
  const own = useQuery({ key: ["usage", "me"], ask: (signal) => ok(client.GET("/api/v2/me", { signal })), every: 30_000 });
  return (
    <>
      <div class="head"><h1>Usage</h1></div>
      {own.data ? <Own of={own.data} /> : own.error ? <Trouble error={own.error} again={() => void own.refetch()} /> : <div class="card"><Loading lines={3} /></div>}
      {isAdmin.value ? <PoolUsage /> : null}
    </>
  );
}

function Own({ of: { usage, limits } }: { of: Schemas["MeOut"] }) {
  if (!usage) return null;
  return (
    <>
      <div class="tiles">
        <Sums title="Last 30 days" sums={usage.last_30_days} />
        <Sums title="Since the beginning" sums={usage.total} />
        {limits ? <Limits limits={limits} /> : null}
      </div>
      <p class="muted">GPU hours are GPUs times hours from the start of a run to its end; what runs now is in it. Tasks count when they were accepted, their ends when they ended.</p>
    </>
  );
}

function Sums({ title, sums }: { title: string; sums: Schemas["UsageSums"] }) {
  return (
    <section class="card tile" aria-label={title}>
      <h2>{title}</h2>
      <p class="tile-number num">{gpuHours(sums.gpu_seconds)} <span class="muted">GPU hours</span></p>
      <dl class="tile-facts num">
        <div><dt>Tasks</dt><dd>{sums.tasks.toLocaleString("en")}</dd></div>
        <div><dt>Succeeded</dt><dd>{sums.succeeded.toLocaleString("en")}</dd></div>
        <div><dt>Failed</dt><dd>{sums.failed.toLocaleString("en")}</dd></div>
        <div><dt>Canceled</dt><dd>{sums.canceled.toLocaleString("en")}</dd></div>
      </dl>
    </section>
  );
}

function Limits({ limits }: { limits: Schemas["OwnLimitsOut"] }) {
  const { gpus_held: held, gpus_quota: quota, waiting_tasks: waiting, waiting_tasks_limit: most } = limits;
  return (
    <section class="card tile" aria-label="Now">
      <h2>Now</h2>
      <p class="tile-number num">{held.toLocaleString("en")} <span class="muted">{quota === null ? "GPUs in use, no quota" : `of ${quota.toLocaleString("en")} GPUs in use`}</span></p>
      {quota === null ? null : <Bar part={quota ? held / quota : 1} look={held >= quota ? "bad" : "run"} label="GPUs of the quota" />}
      <dl class="tile-facts num">
        <div><dt>Tasks that wait</dt><dd>{waiting.toLocaleString("en")} of {most.toLocaleString("en")}</dd></div>
      </dl>
      <Bar part={most ? waiting / most : 1} look={waiting >= most ? "bad" : "run"} label="Waiting tasks of the limit" />
    </section>
  );
}
