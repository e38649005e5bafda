// Something that is done at the press of a button: once at a time, with what came of it.
import type { ComponentChildren } from "preact";
import { useRef, useState } from "preact/hooks";
import { Refused } from "../api/client";
import { Dialog, Trouble } from "./parts";

export interface Action {
  readonly busy: boolean;
  readonly error: unknown;
  run(): void;
}

export function useAction(act: () => Promise<void>): Action {
  const [state, setState] = useState<{ busy: boolean; error: unknown }>({ busy: false, error: null });
  const isRunning = useRef(false);
  async function run(): Promise<void> {
    if (isRunning.current) return;
    isRunning.current = true;
    setState({ busy: true, error: null });
    try {
      await act();
      setState({ busy: false, error: null });
    } catch (error) {
      setState({ busy: false, error });
    } finally {
      isRunning.current = false;
    }
  }
  return { ...state, run: () => void run() };
}

/** The rule of the API that this field has broken. */
export function ruleOf(error: unknown, field: string): string | null {
  return error instanceof Refused ? (error.problem.errors?.find((each) => each.field === field)?.rule ?? null) : null;
}

/** What is said of no field that the form shows. */
export function RestOf({ error, fields }: { error: unknown; fields: readonly string[] }) {
  return error && !fields.some((field) => ruleOf(error, field)) ? <Trouble error={error} /> : null;
}

interface ConfirmProps {
  title: string;
  /** Of the button that does it. */
  label: string;
  act: () => Promise<void>;
  close: () => void;
  children: ComponentChildren;
  isGrave?: boolean;
}

/** Asks before something is done. `act` closes by its end; an error stays in the window. */
export function Confirm({ title, label, act, close, children, isGrave = true }: ConfirmProps) {
  const action = useAction(async () => {
    await act();
    close();
  });
  return (
    <Dialog title={title} close={close}>
      {children}
      {action.error ? <Trouble error={action.error} /> : null}
      <footer>
        <button class="button" type="button" onClick={close}>Leave it</button>
        <button class={isGrave ? "button danger" : "button primary"} type="button" disabled={action.busy} onClick={action.run}>{label}</button>
      </footer>
    </Dialog>
  );
}
