// Who did what to whom, when and from where: newest first, and live while the switch is on. The filter is in the address.
import { useEffect, useRef, useState } from "preact/hooks";
import type { AuditFilter, Entry } from "../api/audit";
import { client, ok } from "../api/client";
import { useQuery } from "../api/queries";
import { moment, shortId } from "../lib/format";
import { go, href, route, setQuery, withQuery } from "../lib/route";
import { ForAdmins } from "../ui/admins";
import { Age, Empty, Loading, Trouble } from "../ui/parts";
import { type Entries, useEntries } from "./audit/entries";

const ACTIONS: Readonly<Record<string, readonly string[]>> = {
  Tasks: ["task.submit", "task.resubmit", "task.export", "task.cancel"],
  Users: ["user.create", "user.disable", "user.enable", "token.issue", "token.revoke"],
  Nodes: ["node.cordon", "node.drain", "node.uncordon", "maintenance.on", "maintenance.off"],
  "Refused looks": ["audit.list", "usage.list", "user.list", "node.list"],
};

export function Audit() {
  return <ForAdmins><AuditPage /></ForAdmins>;
}

function AuditPage() {
  const { query } = route.value;
  const filter: AuditFilter = { user: query.get("user"), actor: query.get("actor"), action: query.get("action"), since: query.get("since") };
  const wantsLive = query.get("live") === "1";
  const entries = useEntries(filter, wantsLive);
  const isFiltered = Object.values(filter).some(Boolean);
  return (
    <>
      <div class="head">
        <h1 class="grow">Audit</h1>
        <Live entries={entries} isOn={wantsLive} />
      </div>
      <Filters filter={filter} />
      {entries.error ? <Trouble error={entries.error} again={entries.reload} /> : null}
      {entries.gap ? <p class="note" data-look="wait">Entries {entries.gap[0].toLocaleString("en")} to {entries.gap[1].toLocaleString("en")} are older than this service keeps them.</p> : null}
      {entries.rows === null ? (entries.error ? null : <div class="card"><Loading lines={8} /></div>) : (
        <section class="card audit" aria-label="Entries">
          <div class="audit-columns audit-head" aria-hidden="true"><span>When</span><span>Who</span><span>Did</span><span>To what</span><span>Whose</span><span>From</span></div>
          {entries.rows.length ? <ol>{entries.rows.map((entry) => <Row key={entry.audit_id} entry={entry} isFresh={entries.fresh.has(entry.audit_id)} />)}</ol> : (
            <Empty>{isFiltered ? <><p>Nothing is like that.</p><p><button class="button" type="button" onClick={() => go(href("audit"))}>Show all</button></p></> : "Nothing was done yet."}</Empty>
          )}
          <Older entries={entries} />
        </section>
      )}
    </>
  );
}

function Live({ entries, isOn }: { entries: Entries; isOn: boolean }) {
  const words = !isOn ? "" : { live: "follows", reconnecting: "connecting", off: "paused" }[entries.live];
  return (
    <label class="switch">
      {isOn ? <span class="live" data-is={entries.live}><i />{words}</span> : null}
      <span>Live</span>
      <input type="checkbox" role="switch" checked={isOn} onChange={(event) => setQuery({ live: event.currentTarget.checked ? 1 : null })} />
    </label>
  );
}

function Filters({ filter }: { filter: AuditFilter }) {
  const { data } = useQuery({ key: ["users"], ask: (signal) => ok(client.GET("/api/v2/users", { signal })), staleTime: 60_000 });
  const known = Object.values(ACTIONS).flat();
  return (
    <div class="filters-more">
      <datalist id="audit-users">{data?.users.map((each) => <option key={each.user_id} value={each.user_id} />)}</datalist>
      <Typed name="user" label="Whose" value={filter.user} />
      <Typed name="actor" label="Who did it" value={filter.actor} />
      <select class="input" aria-label="Action" value={filter.action ?? ""} onChange={(event) => setQuery({ action: event.currentTarget.value || null })}>
        <option value="">All actions</option>
        {filter.action && !known.includes(filter.action) ? <option value={filter.action}>{filter.action}</option> : null}
        {Object.entries(ACTIONS).map(([group, actions]) => <optgroup key={group} label={group}>{actions.map((each) => <option key={each} value={each}>{each}</option>)}</optgroup>)}
      </select>
      <select class="input" aria-label="Since" value={filter.since ?? ""} onChange={(event) => setQuery({ since: event.currentTarget.value || null })}>
        <option value="">Any time</option>
        {[["1h", "Last hour"], ["24h", "Last day"], ["7d", "Last week"], ["4w", "Last four weeks"]].map(([value, words]) => <option key={value} value={value}>{words}</option>)}
      </select>
    </div>
  );
}

function Typed({ name, label, value }: { name: string; label: string; value: string | null }) {
  const [typed, setTyped] = useState(value ?? "");
  useEffect(() => setTyped(value ?? ""), [value]);
  useEffect(() => {
    const wanted = typed.trim();
    if (wanted === (value ?? "")) return;
    const timer = setTimeout(() => setQuery({ [name]: wanted || null }), 300);
    return () => clearTimeout(timer);
  }, [typed]);
  return <input class="input mono" type="search" list="audit-users" aria-label={label} placeholder={label} autoComplete="off" autoCapitalize="off" spellcheck={false} value={typed} onInput={(event) => setTyped(event.currentTarget.value)} />;
}

function Row({ entry, isFresh }: { entry: Entry; isFresh: boolean }) {
  const isDone = entry.result === "done";
  return (
    <li class="audit-row" data-fresh={isFresh || undefined}>
      <details>
        <summary class="audit-columns">
          <span class="a-when"><Age time={entry.at} suffix=" ago" /></span>
          <span class="a-who cut"><bdi>{entry.actor ?? "nobody known"}</bdi></span>
          <span class="a-did cut"><span class="mono">{entry.action}</span>{isDone ? null : <span class="state" data-look="bad">✕ {entry.result}</span>}</span>
          <span class="a-what mono cut" title={entry.target ?? undefined}><bdi>{entry.action.startsWith("task.") && entry.target ? shortId(entry.target) : entry.target}</bdi></span>
          <span class="a-whose cut"><bdi>{entry.user_id}</bdi></span>
          <span class="a-from mono cut">{entry.address}</span>
        </summary>
        <Detail entry={entry} />
      </details>
    </li>
  );
}

function Detail({ entry }: { entry: Entry }) {
  const isTask = entry.action.startsWith("task.") && entry.target && entry.result === "done";
  return (
    <div class="audit-detail">
      <dl class="facts">
        <dt>Entry</dt><dd class="num">{entry.audit_id.toLocaleString("en")}, {moment(entry.at)}</dd>
        <dt>Who</dt><dd><bdi>{entry.actor ?? "a token that nobody knows"}</bdi> <span class="muted">as {entry.role}{entry.token_id ? `, by ${entry.token_id}` : ""}{entry.address ? `, from ${entry.address}` : ""}</span></dd>
        <dt>Result</dt><dd>{entry.result}</dd>
        {entry.target ? <><dt>To what</dt><dd class="mono">{isTask ? <a href={href("task", entry.target)}>{entry.target}</a> : <bdi>{entry.target}</bdi>}</dd></> : null}
        {entry.user_id ? <><dt>Whose</dt><dd><a href={href("users", entry.user_id)}><bdi>{entry.user_id}</bdi></a></dd></> : null}
        {entry.detail ? <><dt>Detail</dt><dd><pre><code><bdi>{JSON.stringify(entry.detail, null, 2)}</bdi></code></pre></dd></> : null}
      </dl>
      <p class="buttons">
        <a class="button small" href={withQuery(href("audit"), { action: entry.action })}>Only {entry.action}</a>
        {entry.actor ? <a class="button small" href={withQuery(href("audit"), { actor: entry.actor })}>Only what {entry.actor} did</a> : null}
      </p>
    </div>
  );
}

/** The next page comes as the end is scrolled to; the button is for who does not scroll. */
function Older({ entries }: { entries: Entries }) {
  const end = useRef<HTMLDivElement>(null);
  const more = useRef(entries.more);
  more.current = entries.more;
  useEffect(() => {
    if (!end.current || entries.isLoading || entries.error) return;
    const watch = new IntersectionObserver((seen) => { if (seen.some((each) => each.isIntersecting)) more.current(); }, { rootMargin: "400px" });
    watch.observe(end.current);
    return () => watch.disconnect();
    // Once more after each answer: who watches an end that stays in sight hears nothing again.
  }, [entries.hasMore, entries.rows?.length, entries.isLoading]);
  if (!entries.hasMore) return null;
  return <div ref={end} class="audit-older"><button class="button" type="button" disabled={entries.isLoading} onClick={entries.more}>{entries.isLoading ? "Loading…" : "Show older"}</button></div>;
}
