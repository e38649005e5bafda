import { signal } from "@preact/signals";

const phone = matchMedia("(max-width: 40rem)");
/** Whether there is room for one column. */
export const isNarrow = signal(phone.matches);
phone.addEventListener("change", () => (isNarrow.value = phone.matches));
