// Short words about what was done, which leave by themselves; errors stay until they are closed.
import { signal } from "@preact/signals";

interface Toast {
  readonly id: number;
  readonly text: string;
  readonly look: "good" | "bad";
}

const toasts = signal<readonly Toast[]>([]);
let next = 1;

export function toast(text: string, look: "good" | "bad" = "good"): void {
  const id = next++;
  toasts.value = [...toasts.value.slice(-3), { id, text, look }];
  if (look === "good") setTimeout(() => close(id), 5000);
}

function close(id: number): void {
  toasts.value = toasts.value.filter((each) => each.id !== id);
}

export function Toasts() {
  return (
    <div class="toasts" role="status" aria-live="polite">
      {toasts.value.map(({ id, text, look }) => (
        <div key={id} class="toast" data-look={look}>
          <span class="grow">{text}</span>
          <button class="button small quiet" type="button" aria-label="Close" onClick={() => close(id)}>×</button>
        </div>
      ))}
    </div>
  );
}
