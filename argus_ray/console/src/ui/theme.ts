// Dark or light: as the machine has it, until somebody says otherwise. The one thing that localStorage keeps.
import { effect, signal } from "@preact/signals";

export type Theme = "auto" | "light" | "dark";
const KEY = "argus.theme";

function kept(): Theme {
  const found = localStorage.getItem(KEY);
  return found === "light" || found === "dark" ? found : "auto";
}

export const theme = signal<Theme>(kept());
const machine = matchMedia("(prefers-color-scheme: dark)");
/** What is shown now; charts draw by it. */
export const isDark = signal(machine.matches);

effect(() => {
  if (theme.value === "auto") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = theme.value;
  localStorage.setItem(KEY, theme.value);
  isDark.value = theme.value === "dark" || (theme.value === "auto" && machine.matches);
});
machine.addEventListener("change", () => {
  if (theme.value === "auto") isDark.value = machine.matches;
});

export function nextTheme(): void {
  theme.value = isDark.value ? "light" : "dark";
}
