// One user: its state, and its tokens.
import { useEffect, useState } from "preact/hooks";
import { client, ok, type Schemas } from "../../api/client";
import { queries, useQuery } from "../../api/queries";
import { moment, second, serverNow } from "../../lib/format";
import { href, withQuery } from "../../lib/route";
import { Confirm } from "../../ui/action";
import { Age, Empty, Loading, Trouble } from "../../ui/parts";
import { toast } from "../../ui/toasts";
import { UserState } from "../users";
import { IssueToken } from "./issue";

type User = Schemas["UserOut"];
type Token = Schemas["TokenOut"];

export function UserPage({ id }: { id: string }) {
  const params = { path: { user_id: id } };
  const user = useQuery({ key: ["users", id], ask: (signal) => ok(client.GET("/api/v2/users/{user_id}", { params, signal })) });
  const tokens = useQuery({ key: ["users", id, "tokens"], ask: (signal) => ok(client.GET("/api/v2/users/{user_id}/tokens", { params, signal })), every: 30_000 });
  const [asked, setAsked] = useState<"state" | "issue" | Token | null>(null);
  const reload = (): void => void queries.invalidateQueries({ queryKey: ["users"] });
  useEffect(() => {
    document.title = `${id} · Users · Argus`;
  }, [id]);

  const close = (): void => setAsked(null);
  return (
    <>
      <nav class="where" aria-label="Where this is"><a href={href("users")}>Users</a> <span class="muted">/</span> <bdi>{id}</bdi></nav>
      {user.data ? (
        <>
          <div class="head">
            <h1><bdi>{user.data.display_name || id}</bdi></h1>
            <UserState state={user.data.state} />
            <span class="grow" />
            <button class={user.data.state === "ACTIVE" ? "button danger" : "button"} type="button" onClick={() => setAsked("state")}>{user.data.state === "ACTIVE" ? "Disable…" : "Enable…"}</button>
          </div>
          <About user={user.data} />
        </>
      ) : user.error ? <Trouble error={user.error} again={() => void user.refetch()} /> : <div class="card"><Loading lines={3} /></div>}
      {user.error && !user.data ? null : (
        <section class="card" aria-label="Tokens">
          <header><h2 class="grow">Tokens</h2><button class="button primary" type="button" onClick={() => setAsked("issue")}>Issue a token…</button></header>
          {tokens.data ? <Tokens tokens={tokens.data.tokens} revoke={setAsked} /> : tokens.error ? <Trouble error={tokens.error} again={() => void tokens.refetch()} /> : <Loading lines={3} />}
        </section>
      )}
      {asked === "state" && user.data ? <ChangeState user={user.data} close={close} done={reload} /> : null}
      {asked === "issue" ? <IssueToken userId={id} close={close} done={reload} /> : null}
      {asked && typeof asked === "object" ? <Revoke token={asked} close={close} done={reload} /> : null}
    </>
  );
}

function About({ user }: { user: User }) {
  const id = user.user_id;
  return (
    <section class="card" aria-label="About this user">
      <dl class="facts in">
        <dt>Id</dt><dd class="mono">{user.user_id}</dd>
        <dt>Since</dt><dd>{moment(user.created_at)} <span class="muted">(<Age time={user.created_at} suffix=" ago" />)</span></dd>
        <dt>More</dt>
        <dd class="buttons"><a href={withQuery(href("tasks"), { user: id })}>Tasks</a><a href={withQuery(href("audit"), { user: id })}>Audit: its own</a><a href={withQuery(href("audit"), { actor: id })}>Audit: what it did</a></dd>
      </dl>
    </section>
  );
}

function isOver(token: Token): string | null {
  if (token.revoked_at) return "Revoked";
  return token.expires_at && Date.parse(token.expires_at) <= serverNow() ? "Expired" : null;
}

function Tokens({ tokens, revoke }: { tokens: readonly Token[]; revoke: (token: Token) => void }) {
  void second.value;
  if (!tokens.length) return <Empty>This user has no token, and so cannot sign in.</Empty>;
  const newest = [...tokens].sort((one, other) => Number(isOver(one) !== null) - Number(isOver(other) !== null) || other.created_at.localeCompare(one.created_at));
  return (
    <div class="scroll-x">
      <table class="table tokens">
        <thead><tr><th scope="col">Token</th><th scope="col">State</th><th scope="col" class="t-issued">Issued</th><th scope="col">Last used</th><th scope="col">Expires</th><th scope="col"><span class="sr-only">Revoke</span></th></tr></thead>
        <tbody>
          {newest.map((token) => {
            const over = isOver(token);
            return (
              <tr key={token.token_id} class={over ? "muted" : undefined}>
                <td class="wide-cell"><bdi class="strong">{token.label}</bdi><span class="t-id mono muted nowrap">{token.token_id}</span></td>
                <td><span class="state" data-look={over ? "off" : "good"}>{over ? `⊘ ${over}` : "✓ Good"}</span></td>
                <td class="t-issued nowrap"><Age time={token.created_at} suffix=" ago" /></td>
                <td class="nowrap">{token.last_used_at ? <Age time={token.last_used_at} suffix=" ago" /> : <span class="muted">never</span>}</td>
                <td class="nowrap">{token.revoked_at ? <Age time={token.revoked_at} suffix=" ago: revoked" /> : token.expires_at ? moment(token.expires_at) : <span class="muted">never</span>}</td>
                <td>{over ? null : <button class="button small danger" type="button" aria-label={`Revoke ${token.label || token.token_id}`} onClick={() => revoke(token)}>Revoke…</button>}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

function ChangeState({ user, close, done }: { user: User; close: () => void; done: () => void }) {
  const isActive = user.state === "ACTIVE";
  const params = { path: { user_id: user.user_id } };
  async function act(): Promise<void> {
    await ok(isActive ? client.POST("/api/v2/users/{user_id}:disable", { params }) : client.POST("/api/v2/users/{user_id}:enable", { params }));
    toast(`${user.user_id} is ${isActive ? "disabled" : "enabled"}.`);
    done();
  }
  return (
    <Confirm title={`${isActive ? "Disable" : "Enable"} ${user.user_id}`} label={isActive ? "Disable" : "Enable"} act={act} close={close} isGrave={isActive}>
      <p>{isActive ? "The very next request of each of its tokens is refused. Its tasks go on; cancel them apart, if they should not." : "Its tokens are good again, but for those that are revoked or have expired."}</p>
    </Confirm>
  );
}

function Revoke({ token, close, done }: { token: Token; close: () => void; done: () => void }) {
  async function act(): Promise<void> {
    await ok(client.DELETE("/api/v2/users/{user_id}/tokens/{token_id}", { params: { path: { user_id: token.user_id, token_id: token.token_id } } }));
    toast("The token is revoked.");
    done();
  }
  return (
    <Confirm title="Revoke the token" label="Revoke" act={act} close={close}>
      <p>The token <b><bdi>{token.label || token.token_id}</bdi></b> of {token.user_id} is refused from now on. That is final; another one can be issued.</p>
    </Confirm>
  );
}
