// Over the page and whatever window is open there, which stay as they are: who must sign in again loses nothing.
import { useState } from "preact/hooks";
import { client, ok, prefix, Refused, words } from "../api/client";
import { refusal, signIn } from "../api/session";
import { Copy, useModal } from "../ui/parts";

export function SignIn() {
  const [element, closed] = useModal(() => undefined);
  const [given, setGiven] = useState("");
  const [error, setError] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const origin = `${location.origin}${prefix}`;
  const command = `curl -fsSO ${origin}/argus.pyz && python3 argus.pyz login ${origin}`;

  async function submit(event: Event): Promise<void> {
    event.preventDefault();
    const token = given.trim();
    if (!token) {
      setError("Paste a token.");
      return;
    }
    setBusy(true);
    setError(null);
    try {
      const who = await ok(client.GET("/api/v2/me", { headers: { Authorization: `Bearer ${token}` } }));
      setGiven("");
      signIn(token, who);
    } catch (problem) {
      const unknown = problem instanceof Refused && problem.problem.status === 401;
      setError(unknown ? "The service does not know this token." : words(problem));
    } finally {
      setBusy(false);
    }
  }

  return (
    <dialog ref={element} class="sign-in" aria-label="Sign in" onCancel={(event) => event.preventDefault()} onClose={closed}>
      <form class="card" onSubmit={(event) => void submit(event)}>
        <div class="in">
          <h1>Argus</h1>
          <p class="muted">Training tasks on a shared pool of GPUs.</p>
          {refusal.value ? <p class="note" data-look="wait" role="alert">{refusal.value}</p> : null}
          <div class="field">
            <label for="token">Token</label>
            <input id="token" class="input mono" type="password" autoComplete="off" autoCapitalize="off" spellcheck={false} placeholder="argus_u_…" value={given} autoFocus
              aria-invalid={error !== null} aria-describedby="token-says" onInput={(event) => setGiven(event.currentTarget.value)} />
            <p id="token-says" class={error ? "wrong" : "hint"} role={error ? "alert" : undefined}>
              {error ?? "It is kept in this tab only. An administrator of the pool issues it."}
            </p>
          </div>
          <button class="button primary" type="submit" disabled={busy}>{busy ? "Signing in…" : "Sign in"}</button>
          <details>
            <summary>The same in a terminal</summary>
            <p class="note"><code>{command}</code></p>
            <Copy text={command} label="Copy the command" />
          </details>
        </div>
      </form>
    </dialog>
  );
}
