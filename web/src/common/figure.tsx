/* A picture that follows its width, and can be read by keyboard: arrows go through the points, left and
 * right along a series, up and down to the next one; what a point says is shown and spoken. */
import { useLayoutEffect, useRef, useState } from 'preact/hooks';

export interface Place {
  series: unknown;
  x: number;
  value: number;
}

interface Props<Spot extends Place> {
  title: string;
  empty: string; // said where there are no spots
  spots: Spot[]; // by series, then x
  draw: (width: number, selected: Spot | null) => Element;
  say: (spot: Spot) => string;
  drawn?: unknown; // the picture is drawn again when this changes, or the spots do
}

/* The point that an arrow key leads to; upwards and downwards the one at the nearest x. */
function neighbour<Spot extends Place>(spots: Spot[], from: Spot, key: string): Spot {
  const along = spots.filter((spot) => spot.series === from.series);
  const place = along.findIndex((spot) => spot.x === from.x);
  if (key === 'ArrowRight') return along[Math.min(place + 1, along.length - 1)] ?? from;
  if (key === 'ArrowLeft') return along[Math.max(place - 1, 0)] ?? from;
  const nearest = new Map<unknown, Spot>();
  for (const spot of spots) {
    const other = nearest.get(spot.series);
    if (!other || Math.abs(spot.x - from.x) < Math.abs(other.x - from.x))
      nearest.set(spot.series, spot);
  }
  const across = [...nearest.values()].sort((a, b) => a.value - b.value);
  const level =
    across.findIndex((spot) => spot.series === from.series) + (key === 'ArrowUp' ? 1 : -1);
  return across[level] ?? from;
}

export function Figure<Spot extends Place>(props: Props<Spot>) {
  const { title, empty, spots, draw, say, drawn } = props;
  const box = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(0);
  const [selected, select] = useState<Spot | null>(null);

  useLayoutEffect(() => {
    const measure = () => setWidth(Math.floor(box.current?.clientWidth ?? 0));
    const observer = new ResizeObserver(measure);
    if (box.current) observer.observe(box.current);
    measure();
    return () => observer.disconnect();
  }, []);

  useLayoutEffect(() => {
    if (width > 0 && spots.length) box.current?.replaceChildren(draw(width, selected));
    else box.current?.replaceChildren();
  }, [width, selected, spots, title, drawn]);

  const onKeyDown = (event: KeyboardEvent) => {
    const first = spots[0];
    if (event.key === 'Escape') select(null);
    if (!first || !event.key.startsWith('Arrow')) return;
    event.preventDefault();
    const from =
      selected && spots.find((spot) => spot.series === selected.series && spot.x === selected.x);
    select(from ? neighbour(spots, from, event.key) : first);
  };

  return (
    <figure class="card">
      <figcaption>{title}</figcaption>
      {spots.length === 0 && <p class="quiet">{empty}</p>}
      <div
        class="picture"
        ref={box}
        tabIndex={spots.length ? 0 : -1}
        role="group"
        aria-roledescription="curves"
        aria-label={`${title}; arrow keys go through the points, a table follows`}
        onKeyDown={onKeyDown}
        onBlur={() => select(null)}
      />
      <p class="unseen" aria-live="polite">
        {selected ? say(selected) : ''}
      </p>
    </figure>
  );
}

/* The line and the symbol of a series, for legends and tables. */
export function Sample({ draw }: { draw: () => Element }) {
  const box = useRef<HTMLSpanElement>(null);
  useLayoutEffect(() => box.current?.replaceChildren(draw()), [draw]);
  return <span class="swatch-box" ref={box} aria-hidden="true" />;
}
