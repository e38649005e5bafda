// A new token: asked for, and shown once.
import { useState } from "preact/hooks";
import { client, ok, prefix, type Schemas } from "../../api/client";
import { moment } from "../../lib/format";
import { RestOf, ruleOf, useAction } from "../../ui/action";
import { Copy, Dialog } from "../../ui/parts";
import { Text } from "../users";

const DAY_S = 86_400;
const EXPIRIES: readonly (readonly [value: string, words: string])[] = [["7", "in 7 days"], ["30", "in 30 days"], ["90", "in 90 days"], ["365", "in a year"], ["", "never"], ["other", "in … days"]];

interface Props {
  userId: string;
  close: () => void;
  done: () => void;
}

export function IssueToken({ userId, close, done }: Props) {
  const [issued, setIssued] = useState<Schemas["IssuedTokenOut"] | null>(null);
  return issued ? <Issued issued={issued} close={close} /> : <Ask userId={userId} close={close} got={(token) => { setIssued(token); done(); }} />;
}

function Ask({ userId, close, got }: { userId: string; close: () => void; got: (token: Schemas["IssuedTokenOut"]) => void }) {
  const [label, setLabel] = useState("");
  const [expiry, setExpiry] = useState("90");
  const [days, setDays] = useState("14");
  const wanted = expiry === "other" ? days.trim() : expiry;
  const isWrong = expiry === "other" && !/^[1-9]\d{0,4}$/.test(wanted);
  const action = useAction(async () => {
    const body = { label: label.trim(), ...(wanted ? { expires_in_s: Number(wanted) * DAY_S } : {}) };
    got(await ok(client.POST("/api/v2/users/{user_id}/tokens", { params: { path: { user_id: userId } }, body })));
  });
  const wrong = isWrong ? "A whole number of days" : ruleOf(action.error, "expires_in_s");
  return (
    <Dialog title={`Issue a token for ${userId}`} close={close}>
      <form class="dialog-form" onSubmit={(event) => { event.preventDefault(); if (!isWrong) action.run(); }}>
        <Text id="token-label" label="Label" hint="Where it is to be used, as: laptop." value={label} set={setLabel} wrong={ruleOf(action.error, "label")} />
        <div class="field">
          <label for="token-expiry">Expires</label>
          <div class="buttons tight">
            <select id="token-expiry" class="input" value={expiry} aria-describedby="token-expiry-says" onChange={(event) => setExpiry(event.currentTarget.value)}>
              {EXPIRIES.map(([value, words]) => <option key={value} value={value}>{words}</option>)}
            </select>
            {expiry === "other" ? <input class="input num days" type="text" inputMode="numeric" aria-label="Days" aria-invalid={wrong !== null} aria-describedby="token-expiry-says" value={days} onInput={(event) => setDays(event.currentTarget.value)} /> : null}
          </div>
          <p id="token-expiry-says" class={wrong ? "wrong" : "hint"}>{wrong ?? (wanted ? `On ${moment(new Date(Date.now() + Number(wanted) * DAY_S * 1000).toISOString())}.` : "It is good until somebody revokes it.")}</p>
        </div>
        <RestOf error={action.error} fields={["label", "expires_in_s"]} />
        <footer>
          <button class="button" type="button" onClick={close}>Leave it</button>
          <button class="button primary" type="submit" disabled={action.busy || isWrong}>Issue the token</button>
        </footer>
      </form>
    </Dialog>
  );
}

/** Escape does not close it: what it shows is shown once. */
function Issued({ issued, close }: { issued: Schemas["IssuedTokenOut"]; close: () => void }) {
  const origin = `${location.origin}${prefix}`;
  const command = `curl -fsSO ${origin}/argus.pyz && python3 argus.pyz login ${origin}`;
  return (
    <Dialog title={`The token of ${issued.user_id}`} close={() => undefined}>
      <p class="note" data-look="wait">It is shown now and never again. Give it to {issued.user_id} in a way that nobody else reads.</p>
      <div class="once"><code>{issued.token}</code><Copy text={issued.token} label="Copy the token" /></div>
      <h3>To sign in</h3>
      <p class="muted">Here, with the token; or in a terminal by this, which asks for it:</p>
      <div class="once"><code>{command}</code><Copy text={command} label="Copy the command" /></div>
      <footer><button class="button primary" type="button" onClick={close}>Done</button></footer>
    </Dialog>
  );
}
