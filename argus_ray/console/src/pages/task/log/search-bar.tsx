import type { RefObject } from "preact";
import type { Searching } from "./search";

export function SearchBar({ search, field, back }: { search: Searching; field: RefObject<HTMLInputElement>; back: () => void }) {
  const { what } = search;
  return (
    <form class="log-search" role="search" onSubmit={(event) => { event.preventDefault(); search.next(false); }}>
      <input ref={field} class="input mono" type="search" aria-label="Search the whole log" placeholder="Search the whole log ( / )" value={what.text} spellcheck={false} autoComplete="off" aria-invalid={search.isWrong} aria-describedby="log-search-says"
        onInput={(event) => search.set({ text: event.currentTarget.value })}
        onKeyDown={(event) => {
          if (event.key === "Enter" && event.shiftKey) {
            event.preventDefault();
            search.next(true);
          } else if (event.key === "Escape") {
            event.preventDefault();
            search.stop();
            back();
          }
        }} />
      <button class="chip" type="button" aria-pressed={what.regex} title="A regular expression (RE2)" onClick={() => search.set({ regex: !what.regex })}>.*<span class="sr-only">Regular expression</span></button>
      <button class="chip" type="button" aria-pressed={!what.anyCase} title="Capital letters matter" onClick={() => search.set({ anyCase: !what.anyCase })}>Aa<span class="sr-only">Match case</span></button>
      <button class="button small" type="button" disabled={!what.text} onClick={() => search.next(true)} aria-label="Previous match" title="Previous match (N)">↑</button>
      <button class="button small" type="submit" disabled={!what.text} aria-label="Next match" title="Next match (n)">↓</button>
      {search.busy ? <button class="button small quiet" type="button" onClick={search.stop}>Stop</button> : null}
      <span id="log-search-says" class={search.isWrong ? "wrong" : "muted"} role="status" aria-live="polite">{search.says}</span>
    </form>
  );
}
