/* A picture of the report, and the sample of a series, as curves.ts draws them. */
import { useCallback } from 'preact/hooks';
import { Figure, Sample } from '../common/figure';
import { draw, spoken, swatch, type Picture } from './curves';
import type { Series } from './results';

export function Chart(props: Omit<Picture, 'width' | 'selected'>) {
  const { title, spots, section, metric } = props;
  return (
    <Figure
      {...{ title, spots }}
      empty="None of these rows has this number."
      draw={(width, selected) => draw({ ...props, width, selected })}
      say={(spot) => spoken(spot, section, metric)}
    />
  );
}

export function Swatch({ series }: { series: Series }) {
  return <Sample draw={useCallback(() => swatch(series), [series])} />;
}
