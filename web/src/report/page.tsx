/* The report: what was measured and where, the curves, and every number in a table. */
import { useMemo, useState } from 'preact/hooks';
import { bytes, factor, length, ratio, time } from '../common/units';
import { Chart, Swatch } from './chart';
import { METRICS, domain, spotsOf } from './curves';
import {
  arrange,
  at,
  growth,
  headline,
  usualReference,
  type Axis,
  type Headline,
  type Machine,
  type Pass,
  type Point,
  type Report,
  type Section,
  type Series,
} from './results';

function machineLine(machine: Machine): string {
  const parts = [machine.cpu, machine.isa];
  if (machine.cores) parts.push(`${machine.cores} core${machine.cores === 1 ? '' : 's'}`);
  if (machine.memory_bytes) parts.push(`${Math.round(machine.memory_bytes / 2 ** 30)} GiB`);
  if (machine.gigaflops_per_core)
    parts.push(`${Math.round(machine.gigaflops_per_core)} GFLOP/s a core`);
  if (machine.read_gigabytes)
    parts.push(
      `reads ${machine.read_gigabytes.toPrecision(3)} GB/s` +
        (machine.read_gigabytes_all
          ? `, all cores ${machine.read_gigabytes_all.toPrecision(3)}`
          : '')
    );
  return parts.filter(Boolean).join(' · ');
}

/* "6.5 times faster than torch full (571 ms)" */
function Sentence({ found, axis }: { found: Headline; axis: Axis }) {
  const { best, reference } = found;
  const faster = reference.seconds / best.seconds;
  const lighter = best.bytes && reference.bytes ? reference.bytes / best.bytes : 1;
  return (
    <li>
      <span class="factor">{ratio(faster)}</span>
      <span>
        <b>{found.pass.title}</b> at {axis.letter} = {length(found.x)}: <b>{best.series.label}</b>{' '}
        takes {time(best.seconds)}, {factor(faster >= 1 ? faster : 1 / faster)} times{' '}
        {faster >= 1 ? 'faster' : 'slower'} than {reference.series.label} ({time(reference.seconds)}
        )
        {(lighter > 1.1 || lighter < 0.9) &&
          `; memory ${bytes(best.bytes!)} instead of ${bytes(reference.bytes!)}`}
        .
      </span>
    </li>
  );
}

interface LegendProps {
  section: Section;
  hidden: Set<string>;
  toggle: (series: Series) => void;
}

function Legend({ section, hidden, toggle }: LegendProps) {
  const last = section.passes[section.passes.length - 1]!;
  return (
    <ul class="legend" aria-label="Series; a button hides or shows one">
      {section.series.map((series) => {
        const power = growth(last, series);
        return (
          <li key={series.key}>
            <button
              type="button"
              aria-pressed={!hidden.has(series.key)}
              title={hidden.has(series.key) ? 'show' : 'hide'}
              onClick={() => toggle(series)}
            >
              <Swatch series={series} />
              <span>
                {series.label}
                {power !== null && (
                  <small title={`growth of the time of the last step, ${last.title.toLowerCase()}`}>
                    {' '}
                    ∝ {section.axis.letter}
                    <sup>{power.toFixed(1)}</sup>
                  </small>
                )}
              </span>
            </button>
          </li>
        );
      })}
    </ul>
  );
}

/* A ratio to the reference. */
function Times({ value }: { value: number | null }) {
  return <td class="number ratio">{value === null ? '' : ratio(value)}</td>;
}

function Table({ section, pass, reference }: { section: Section; pass: Pass; reference: Series }) {
  const groups = section.xs
    .map((x) => ({ x, points: pass.points.filter((point) => point.x === x) }))
    .filter(({ points }) => points.length);
  const times = (point: Point, of: (point: Point) => number | null): number | null => {
    const other = at(pass, reference, point.x);
    const [a, b] = [other ? of(other) : null, of(point)];
    return a && b ? a / b : null;
  };
  const compared = section.series.length > 1;
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={`Numbers: ${pass.title}`}>
      <table>
        <caption>{pass.title}</caption>
        <thead>
          <tr>
            <th scope="col">{section.axis.letter}</th>
            <th scope="col">series</th>
            <th scope="col" class="number">
              shortest
            </th>
            {compared && (
              <th scope="col" class="number">
                faster
              </th>
            )}
            <th scope="col" class="number median">
              median
            </th>
            <th scope="col" class="number">
              memory
            </th>
            {compared && (
              <th scope="col" class="number">
                less
              </th>
            )}
          </tr>
        </thead>
        {groups.map(({ x, points }) => (
          <tbody key={x}>
            {points.map((point, i) => (
              <tr key={point.series.key} class={point.series === reference ? 'reference' : ''}>
                {i === 0 && (
                  <th scope="rowgroup" rowSpan={points.length}>
                    {length(x)}
                  </th>
                )}
                <th scope="row">
                  <Swatch series={point.series} /> {point.series.label}
                </th>
                <td class="number">{time(point.seconds)}</td>
                {compared && <Times value={times(point, (one) => one.seconds)} />}
                <td class="number median quiet">
                  {point.median === null ? '' : time(point.median)}
                </td>
                <td class="number">{point.bytes === null ? '' : bytes(point.bytes)}</td>
                {compared && <Times value={times(point, (one) => one.bytes)} />}
              </tr>
            ))}
          </tbody>
        ))}
      </table>
    </div>
  );
}

function Curves({ section, hidden }: { section: Section; hidden: Set<string> }) {
  const series = section.series.filter((one) => !hidden.has(one.key));
  const x = domain(section.xs, 1);
  return (
    <div class={`grid passes-${Math.min(section.passes.length, 2)}`}>
      {METRICS.map((metric) => {
        const all = section.passes.flatMap((pass) => spotsOf(pass.points, metric));
        if (!all.length) return null;
        const y = domain(
          all.map((spot) => spot.value),
          6
        );
        return section.passes.map((pass) => (
          <Picture
            key={metric.name(section) + pass.name}
            {...{ section, pass, metric, series, x, y }}
          />
        ));
      })}
    </div>
  );
}

type PictureProps = {
  section: Section;
  pass: Pass;
  metric: (typeof METRICS)[number];
  series: Series[];
  x: [number, number];
  y: [number, number];
};

function Picture({ section, pass, metric, series, x, y }: PictureProps) {
  const shown = series.map((one) => one.key).join('\n');
  const spots = useMemo(
    () => spotsOf(pass.points, metric).filter((spot) => series.includes(spot.series)),
    [pass, metric, shown]
  );
  const title = `${pass.title}: ${metric.name(section)}`;
  return <Chart {...{ title, spots, series, x, y, metric, section }} />;
}

function Part({ section, machine }: { section: Section; machine: boolean }) {
  const [reference, setReference] = useState(() => usualReference(section));
  const [hidden, setHidden] = useState<Set<string>>(() => new Set());
  const toggle = ({ key }: Series) => {
    const next = new Set(hidden);
    if (!next.delete(key)) next.add(key);
    if (next.size < section.series.length) setHidden(next);
  };
  const found = section.passes.flatMap((pass) => headline(pass, reference) ?? []);
  return (
    <section>
      <h2>{section.title}</h2>
      <p class="quiet">
        {section.letters}
        {machine && section.machine && ` · ${machineLine(section.machine)}`}
      </p>
      {section.series.length > 1 && (
        <ul class="headlines">
          {found.map((one) => (
            <Sentence key={one.pass.name} found={one} axis={section.axis} />
          ))}
        </ul>
      )}
      <Legend {...{ section, hidden, toggle }} />
      <Curves {...{ section, hidden }} />
      <div class="numbers">
        <h3>Numbers</h3>
        <label hidden={section.series.length < 2}>
          compared with{' '}
          <select
            value={reference.key}
            onChange={(event) => {
              const key = event.currentTarget.value;
              setReference(section.series.find((one) => one.key === key) ?? reference);
            }}
          >
            {section.series.map((one) => (
              <option key={one.key} value={one.key}>
                {one.label}
              </option>
            ))}
          </select>
        </label>
      </div>
      <div class={`grid tables-${section.passes.length}`}>
        {section.passes.map((pass) => (
          <Table key={pass.name} {...{ section, pass, reference }} />
        ))}
      </div>
    </section>
  );
}

function Origin({ report }: { report: Report }) {
  const commands = new Set(report.runs.flatMap((run) => run.command ?? []));
  if (report.command) commands.add(report.command);
  return (
    <footer>
      <h2>Where it comes from</h2>
      <pre tabIndex={0} aria-label="Command lines">
        <code>{[...commands].join('\n')}</code>
      </pre>
      <p>
        Time: the shortest of the timed runs; ratios are of these, and the median stands in the
        table. Memory: the most that the process held beyond inputs and outputs. Both axes are
        logarithmic, so a straight line is a power, written behind the names. Full lines and filled
        symbols are keyhole, dashed lines and hollow symbols its peers.
      </p>
      <p class="quiet">
        keyhole {report.version} ({report.commit}). This file holds everything it shows and loads
        nothing.
      </p>
    </footer>
  );
}

export function Page({ report }: { report: Report }) {
  const model = useMemo(() => arrange(report), [report]);
  const one = model.machines.length === 1;
  return (
    <>
      <header>
        <h1>{model.title}</h1>
        {one && <p class="quiet">{machineLine(model.machines[0]!)}</p>}
      </header>
      {model.sections.length === 0 && <p>There are no results to show.</p>}
      {model.leftOut > 0 && (
        <p class="quiet">Rows without a length or a time, left out: {model.leftOut}.</p>
      )}
      {model.sections.map((section) => (
        <Part key={section.title + (section.machine?.cpu ?? '')} section={section} machine={!one} />
      ))}
      <Origin report={report} />
    </>
  );
}
