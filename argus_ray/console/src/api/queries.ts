// What was asked and is kept: one call for all who want the same, asked again while it is looked at.
import { QueryClient, QueryObserver, type QueryKey, type QueryObserverResult } from "@tanstack/query-core";
import { useEffect, useMemo, useState } from "preact/hooks";
import { isPassing, pauseOf } from "./client";
import { token } from "./session";

/** However long the service asks for. */
const LONGEST_PAUSE_MS = 10_000;

export const queries = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 5_000,
      gcTime: 300_000,
      // What was seen stays on the page meanwhile; the banner says as of when.
      retry: (failures, error) => isPassing(error) && failures < 20,
      retryDelay: (failures, error) => pauseOf(error, Math.min(2_000, 250 * 2 ** failures), LONGEST_PAUSE_MS),
      networkMode: "always",
    },
    mutations: { networkMode: "always" },
  },
});
queries.mount();

export interface Asked<Data> {
  key: QueryKey;
  ask: (signal: AbortSignal) => Promise<Data>;
  /** Milliseconds between two looks while the page is visible; false: once. */
  every?: number | false;
  enabled?: boolean;
  staleTime?: number;
  /** Show what another key has left until this one has its own, as a list whose filter changes. */
  keepPrevious?: boolean;
}

export function useQuery<Data>(asked: Asked<Data>): QueryObserverResult<Data, Error> {
  const options = {
    queryKey: asked.key,
    queryFn: ({ signal }: { signal: AbortSignal }) => asked.ask(signal),
    refetchInterval: asked.every ?? false,
    refetchIntervalInBackground: false,
    // What is behind the sign-in stays as it is, and is asked for anew with the next token.
    enabled: (asked.enabled ?? true) && token.value !== null,
    ...(asked.staleTime === undefined ? {} : { staleTime: asked.staleTime }),
    ...(asked.keepPrevious ? { placeholderData: (previous: Data | undefined) => previous } : {}),
  } as const;
  const observer = useMemo(() => new QueryObserver<Data, Error>(queries, options as never), []);
  const [result, setResult] = useState(() => observer.getOptimisticResult(queries.defaultQueryOptions(options as never)));
  useEffect(() => observer.subscribe(setResult), [observer]);
  useEffect(() => {
    observer.setOptions(options as never);
    setResult(observer.getOptimisticResult(queries.defaultQueryOptions(options as never)));
  }, [observer, JSON.stringify(asked.key), options.enabled, options.refetchInterval]);
  return result;
}
