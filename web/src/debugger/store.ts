/* One state for the page, and components that follow the parts of it that they show. */
import { useLayoutEffect, useState } from 'preact/hooks';

export class Store<S extends object> {
  private followers = new Set<() => void>();
  constructor(public state: S) {}

  set(some: Partial<S>): void {
    this.state = { ...this.state, ...some };
    for (const follow of [...this.followers]) follow();
  }

  follow(changed: () => void): () => void {
    this.followers.add(changed);
    return () => void this.followers.delete(changed);
  }
}

/* What `pick` finds in the state, drawn again when it is another object or value. */
export function useStore<S extends object, T>(store: Store<S>, pick: (state: S) => T): T {
  const [, draw] = useState(0);
  const now = pick(store.state);
  useLayoutEffect(() => {
    let seen = now;
    const look = () => {
      const found = pick(store.state);
      if (Object.is(found, seen)) return;
      seen = found;
      draw((n) => n + 1);
    };
    look();
    return store.follow(look);
  }, [store, now]);
  return now;
}
