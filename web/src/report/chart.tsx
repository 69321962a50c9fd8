/* A picture that follows its width, and can be read by keyboard: arrows go through the points, left and
 * right along a series, up and down to the next one; what a point says is shown and spoken. */
import { useLayoutEffect, useRef, useState } from 'preact/hooks';
import { draw, spoken, swatch, type Metric, type Spot } from './curves';
import type { Section, Series } from './results';

interface Props {
  title: string;
  spots: Spot[];
  series: Series[];
  x: [number, number];
  y: [number, number];
  metric: Metric;
  section: Section;
}

/* The point that an arrow key leads to. */
function neighbour(spots: Spot[], from: Spot, key: string): Spot {
  const along = spots.filter((spot) => spot.series === from.series);
  const place = along.findIndex((spot) => spot.x === from.x);
  if (key === 'ArrowRight') return along[Math.min(place + 1, along.length - 1)] ?? from;
  if (key === 'ArrowLeft') return along[Math.max(place - 1, 0)] ?? from;
  const across = spots.filter((spot) => spot.x === from.x).sort((a, b) => a.value - b.value);
  const level =
    across.findIndex((spot) => spot.series === from.series) + (key === 'ArrowUp' ? 1 : -1);
  return across[level] ?? from;
}

export function Chart(props: Props) {
  const { title, spots, section, metric } = props;
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
    if (width > 0 && spots.length)
      box.current?.replaceChildren(draw({ ...props, width, selected }));
    else box.current?.replaceChildren();
  }, [width, selected, spots, title]);

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
      {spots.length === 0 && <p class="quiet">None of these rows has this number.</p>}
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
        {selected ? spoken(selected, section, metric) : ''}
      </p>
    </figure>
  );
}

export function Swatch({ series }: { series: Series }) {
  const box = useRef<HTMLSpanElement>(null);
  useLayoutEffect(() => box.current?.replaceChildren(swatch(series)), [series]);
  return <span class="swatch-box" ref={box} aria-hidden="true" />;
}
