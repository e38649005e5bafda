// The shell: navigation, the state of the connection, and the page of the address.
import type { FunctionComponent } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { client, isPassing, ok } from "./api/client";
import { useQuery } from "./api/queries";
import { isAdmin, me, signOut, token } from "./api/session";
import { currentAt, link, startStream } from "./api/stream";
import { timeOfDay, second } from "./lib/format";
import { href, route } from "./lib/route";
import { Audit } from "./pages/audit";
import { Compare } from "./pages/compare";
import { Pool } from "./pages/pool";
import { Queue } from "./pages/queue";
import { SignIn } from "./pages/sign-in";
import { Submit } from "./pages/submit";
import { TaskPage } from "./pages/task";
import { Tasks } from "./pages/tasks";
import { Usage } from "./pages/usage";
import { Users } from "./pages/users";
import { Loading, Trouble } from "./ui/parts";
import { nextTheme, isDark } from "./ui/theme";
import { Toasts } from "./ui/toasts";

interface Place {
  readonly title: string;
  readonly page: FunctionComponent;
  readonly for: "all" | "admin" | "none";
}

/** By the first part of the address. Those for "none" stand in no menu. */
const PLACES: Readonly<Record<string, Place>> = {
  tasks: { title: "Tasks", page: Tasks, for: "all" },
  submit: { title: "Submit", page: Submit, for: "all" },
  queue: { title: "Queue", page: Queue, for: "all" },
  usage: { title: "Usage", page: Usage, for: "all" },
  pool: { title: "Pool", page: Pool, for: "admin" },
  users: { title: "Users", page: Users, for: "admin" },
  audit: { title: "Audit", page: Audit, for: "admin" },
  compare: { title: "Compare", page: Compare, for: "none" },
  task: { title: "Task", page: TaskPage, for: "none" },
};

startStream();

export function App() {
  const isIn = token.value !== null;
  return (
    <>
      {me.value ? <Shell /> : isIn ? <Entering /> : null}
      {isIn ? null : <SignIn />}
      <Toasts />
    </>
  );
}

/** With a token of before a reload: it is asked whether it is still good. */
function Entering() {
  const { data, error, refetch } = useQuery({ key: ["me"], ask: (signal) => ok(client.GET("/api/v2/me", { signal })), every: 5_000 });
  useEffect(() => {
    if (data) me.value = data;
  }, [data]);
  return <main class="page">{error && !isPassing(error) ? <Trouble error={error} again={() => void refetch()} /> : <Loading lines={5} />}</main>;
}

function Shell() {
  const [first = "tasks"] = route.value.path;
  const place = PLACES[first];
  const Page = place?.page ?? Nowhere;
  useEffect(() => {
    if (!place || place.for !== "none") document.title = `${place?.title ?? "Not found"} · Argus`;
  }, [place]);
  const nav = useRef<HTMLElement>(null);
  // Where the menu is wider than the window.
  useEffect(() => nav.current?.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" }), [first]);
  const seen = Object.entries(PLACES).filter(([, each]) => each.for === "all" || (each.for === "admin" && isAdmin.value));
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); document.getElementById("main")?.focus(); }}>To the content</a>
      <header class="bar">
        <a class="brand" href={href("tasks")} aria-label="Argus: tasks"><Eye /><span>Argus</span></a>
        <nav ref={nav} class="nav" aria-label="Pages">
          {seen.map(([name, each]) => <a key={name} href={href(name)} aria-current={name === first || (name === "tasks" && first === "task") ? "page" : undefined}>{each.title}</a>)}
        </nav>
        <Connection />
        <button class="button quiet icon" type="button" onClick={nextTheme} aria-label={isDark.value ? "Light colours" : "Dark colours"} title={isDark.value ? "Light colours" : "Dark colours"}>{isDark.value ? "☀" : "☾"}</button>
        <span class="muted wide">{me.value?.user_id ?? me.value?.role}</span>
        <button class="button quiet small" type="button" onClick={signOut}>Sign out</button>
      </header>
      <Away />
      <main class="page" id="main" tabIndex={-1}><Page key={first} /></main>
    </>
  );
}

function Connection() {
  const state = link.value;
  const words = { live: "live", off: "paused", connecting: "connecting", reconnecting: "reconnecting" }[state];
  return <span class="live" data-is={state}><i />{words}</span>;
}

/** Only after a moment: a connection that is made anew at once is nobody's business. */
function Away() {
  void second.value;
  const isAway = link.value === "reconnecting" && Date.now() - currentAt.value > 1500;
  return (
    <div aria-live="polite">
      {isAway ? <div class="banner">The service does not answer: reconnecting. What you see is as of {timeOfDay(currentAt.value)}.</div> : null}
    </div>
  );
}

function Nowhere() {
  return <div class="empty"><h1>There is no such page</h1><p><a href={href("tasks")}>To the tasks</a></p></div>;
}

function Eye() {
  return (
    <svg viewBox="0 0 32 32" aria-hidden="true">
      <rect width="32" height="32" rx="7" fill="#1d4ed8" /><path d="M4 16c4-7 8-9 12-9s8 2 12 9c-4 7-8 9-12 9s-8-2-12-9z" fill="#fff" /><circle cx="16" cy="16" r="5.2" fill="#1d4ed8" /><circle cx="17.8" cy="14.2" r="1.6" fill="#fff" />
    </svg>
  );
}
