import { useState } from "preact/hooks";
import { client, ok, words } from "../../api/client";
import { queries, useQuery } from "../../api/queries";
import { Age } from "../../ui/parts";
import { toast } from "../../ui/toasts";

/** Submissions are accepted and nothing starts. */
export function MaintenanceSwitch() {
  const { data } = useQuery({ key: ["maintenance"], ask: (signal) => ok(client.GET("/api/v2/maintenance", { signal })), every: 10_000 });
  const [reason, setReason] = useState("");
  const [busy, setBusy] = useState(false);
  if (!data) return null;

  async function set(on: boolean): Promise<void> {
    setBusy(true);
    try {
      await ok(client.PUT("/api/v2/maintenance", { body: { on, reason } }));
      toast(on ? "Maintenance: nothing starts now." : "Maintenance is over; all goes on in order.");
      setReason("");
    } catch (error) {
      toast(words(error), "bad");
    }
    setBusy(false);
    void queries.invalidateQueries({ queryKey: ["maintenance"] });
  }

  return (
    <section class="card" aria-labelledby="maintenance">
      <header><h2 id="maintenance" class="grow">Maintenance</h2>{data.on ? <span class="state" data-look="wait">on</span> : <span class="state">off</span>}</header>
      {data.on ? (
        <div class="in maintenance"><p class="grow">{data.reason || "No reason given"}; {data.by}, <Age time={data.since} suffix=" ago" />. Submissions are accepted and nothing starts.</p><button class="button" type="button" disabled={busy} onClick={() => void set(false)}>End maintenance</button></div>
      ) : (
        <form class="in maintenance" onSubmit={(event) => { event.preventDefault(); void set(true); }}>
          <input class="input" aria-label="Reason of the maintenance" placeholder="Reason, shown to whoever waits" maxLength={500} value={reason} onInput={(event) => setReason(event.currentTarget.value)} />
          <button class="button" type="submit" disabled={busy}>Begin maintenance</button>
        </form>
      )}
    </section>
  );
}
