// Users of the service, and one of them with its tokens.
import { useState } from "preact/hooks";
import { client, ok, type Schemas } from "../api/client";
import { queries, useQuery } from "../api/queries";
import { count } from "../lib/format";
import { go, href, route, withQuery } from "../lib/route";
import { ForAdmins } from "../ui/admins";
import { RestOf, ruleOf, useAction } from "../ui/action";
import { Age, Dialog, Empty, Loading, Trouble } from "../ui/parts";
import { toast } from "../ui/toasts";
import { UserPage } from "./users/user";

export function Users() {
  const [, id] = route.value.path;
  return <ForAdmins>{id ? <UserPage key={id} id={id} /> : <List />}</ForAdmins>;
}

function List() {
  const { data, error, refetch } = useQuery({ key: ["users"], ask: (signal) => ok(client.GET("/api/v2/users", { signal })) });
  const [adding, setAdding] = useState(false);
  const [part, setPart] = useState("");
  const found = data?.users.filter((each) => `${each.user_id} ${each.display_name}`.toLowerCase().includes(part.trim().toLowerCase()));
  return (
    <>
      <div class="head">
        <h1>Users</h1>
        <span class="muted grow">{data ? count(data.users.length, "user") : ""}</span>
        <input class="input narrow" type="search" aria-label="Part of a name" placeholder="Part of a name" value={part} onInput={(event) => setPart(event.currentTarget.value)} />
        <button class="button primary" type="button" onClick={() => setAdding(true)}>Add a user…</button>
      </div>
      {error && !data ? <Trouble error={error} again={() => void refetch()} /> : null}
      <section class="card" aria-label="Users">
        {!found ? (error ? null : <Loading lines={5} />) : found.length ? <Table users={found} /> : (
          <Empty>{data?.users.length ? "No user has such a name." : "No users yet. Each has tasks, tokens and a quota of its own."}</Empty>
        )}
      </section>
      {adding ? <NewUser close={() => setAdding(false)} /> : null}
    </>
  );
}

export function UserState({ state }: { state: string }) {
  const isActive = state === "ACTIVE";
  return <span class="state" data-look={isActive ? "good" : "off"}>{isActive ? "✓ Active" : "⊘ Disabled"}</span>;
}

function Table({ users }: { users: readonly Schemas["UserOut"][] }) {
  return (
    <div class="scroll-x">
      <table class="table">
        <thead><tr><th scope="col">Id</th><th scope="col">Name</th><th scope="col">State</th><th scope="col">Since</th><th scope="col"><span class="sr-only">More</span></th></tr></thead>
        <tbody>
          {users.map((user) => (
            <tr key={user.user_id}>
              <td><a class="strong" href={href("users", user.user_id)}>{user.user_id}</a></td>
              <td class="wide-cell"><bdi>{user.display_name}</bdi></td>
              <td><UserState state={user.state} /></td>
              <td><Age time={user.created_at} suffix=" ago" /></td>
              <td class="nowrap"><a href={withQuery(href("tasks"), { user: user.user_id })}>tasks<span class="sr-only"> of {user.user_id}</span></a></td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function NewUser({ close }: { close: () => void }) {
  const [id, setId] = useState("");
  const [name, setName] = useState("");
  const action = useAction(async () => {
    const user = await ok(client.POST("/api/v2/users", { body: { user_id: id.trim(), display_name: name.trim() } }));
    void queries.invalidateQueries({ queryKey: ["users"] });
    toast(`${user.user_id} is a user now.`);
    close();
    go(href("users", user.user_id));
  });
  return (
    <Dialog title="Add a user" close={close}>
      <form class="dialog-form" onSubmit={(event) => { event.preventDefault(); action.run(); }}>
        <Text id="user-id" label="Id" hint="1 to 32 of a-z, 0-9 and single hyphens. It never changes." value={id} set={setId} wrong={ruleOf(action.error, "user_id")} isMono />
        <Text id="user-name" label="Name" hint="For people; it may be empty." value={name} set={setName} wrong={ruleOf(action.error, "display_name")} />
        <RestOf error={action.error} fields={["user_id", "display_name"]} />
        <footer>
          <button class="button" type="button" onClick={close}>Leave it</button>
          <button class="button primary" type="submit" disabled={action.busy || !id.trim()}>Add the user</button>
        </footer>
      </form>
    </Dialog>
  );
}

interface TextProps {
  id: string;
  label: string;
  hint: string;
  value: string;
  set: (value: string) => void;
  wrong: string | null;
  isMono?: boolean;
}

export function Text({ id, label, hint, value, set, wrong, isMono = false }: TextProps) {
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <input id={id} class={isMono ? "input mono" : "input"} type="text" autoComplete="off" autoCapitalize="off" spellcheck={false} value={value} aria-invalid={wrong !== null} aria-describedby={`${id}-says`}
        onInput={(event) => set(event.currentTarget.value)} />
      <p id={`${id}-says`} class={wrong ? "wrong" : "hint"} role={wrong ? "alert" : undefined}>{wrong ?? hint}</p>
    </div>
  );
}
