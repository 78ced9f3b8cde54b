/** How a React page shows recommendations and tells the service what is clicked. */
import { useCallback, useEffect, useState } from "react";
import type { Client, Recommendation, RecommendRequest } from "../src/client.js";

export interface Recommendations {
  readonly answer: Recommendation | undefined;
  readonly error: unknown;
  /** Call it when the user opens an item of the answer. */
  readonly onOpen: (itemId: string) => void;
}

/** Recommends anew when the user or `k` changes; an answer that comes too late is dropped. */
export function useRecommendations(client: Client, userId: string, k = 10): Recommendations {
  const [answer, setAnswer] = useState<Recommendation>();
  const [error, setError] = useState<unknown>();

  useEffect(() => {
    const leaving = new AbortController();
    const request: RecommendRequest = { user_id: userId, k };
    client.recommend(request, { signal: leaving.signal }).then(
      (found) => {
        setAnswer(found);
        setError(undefined);
      },
      (failure: unknown) => {
        if (!leaving.signal.aborted) setError(failure);
      },
    );
    return () => leaving.abort();
  }, [client, userId, k]);

  const onOpen = useCallback(
    (itemId: string) => {
      const event = {
        event_id: crypto.randomUUID(),
        user_id: userId,
        item_id: itemId,
        ...(answer === undefined ? {} : { recommendation_id: answer.recommendation_id }),
      };
      client.sendEvents([event]).catch(setError);
    },
    [client, userId, answer],
  );

  return { answer, error, onOpen };
}
