/* The page: what the runs came to, switches and curves, every final number, and the options. */
import { useMemo, useState } from 'preact/hooks';
import { Figure } from '../common/figure';
import { duration, figures, percent, percentTick, ratio } from '../common/units';
import { draw, spoken } from './curves';
import { METRICS, spotsOf, type Choice, type Metric, type Over, type Spot } from './metrics';
import { Differences, Numbers, Options, Swatch, progress } from './numbers';
import {
  isShared,
  number,
  optionOf,
  optionsOf,
  outcomeOf,
  whole,
  type Report,
  type Run,
} from './runs';

/* ---- findings ---- */

interface Finding {
  value: string;
  text: string;
  of?: string; // the run that it is about
}

/* The runs that have the number, the best one first. */
function ranking(runs: Run[], of: (run: Run) => number | null, sign: 1 | -1): [Run, number][] {
  return runs
    .flatMap((run): [Run, number][] => {
      const value = of(run);
      return value === null ? [] : [[run, value]];
    })
    .sort((a, b) => sign * (a[1] - b[1]));
}

const atStep = (line: { step?: number | null } | null): string =>
  line && typeof line.step === 'number' ? ` at step ${whole(line.step)}` : '';

function findingsOf(runs: Run[]): Finding[] {
  const found: Finding[] = [];
  const several = runs.length > 1;
  const add = (
    what: string,
    ranked: [Run, number][],
    say: (value: number) => string,
    more: (run: Run) => string
  ) => {
    const [best, next] = ranked;
    if (!best) return;
    const behind =
      next &&
      `; ${next[0].label} ${next[1] === best[1] ? 'has the same' : `comes to ${say(next[1])}`}`;
    found.push({
      value: say(best[1]),
      of: several ? best[0].label : undefined,
      text: `${what}${more(best[0])}${behind ?? ''}`,
    });
  };
  const losses = ranking(runs, (run) => number(run.best?.eval_loss), 1);
  add('lowest held-out loss', losses, figures, (run) => atStep(run.best));
  if (!losses.length)
    add(
      several ? 'lowest training loss' : 'training loss',
      ranking(runs, (run) => number(run.last.loss), 1),
      figures,
      (run) => atStep(run.last)
    );
  const accurate = ranking(runs, (run) => number(run.lastEval?.eval_accuracy), -1);
  add(several ? 'highest held-out accuracy' : 'held-out accuracy', accurate, percent, (run) =>
    atStep(run.lastEval)
  );
  const rated = ranking(runs, (run) => outcomeOf(run).rate, -1);
  const [fast, slow] = [rated[0], rated[rated.length - 1]];
  if (fast && slow && fast[1] > 1.05 * slow[1])
    found.push({
      value: ratio(fast[1] / slow[1]),
      of: fast[0].label,
      text: `${whole(fast[1])} tokens a second; ${slow[0].label} makes ${whole(slow[1])}`,
    });
  else if (fast && !several)
    found.push({
      value: whole(fast[1]),
      text: 'tokens a second, evaluations included',
    });
  return found;
}

function Findings({ runs }: { runs: Run[] }) {
  return (
    <ul class="headlines">
      {findingsOf(runs).map((one) => (
        <li key={one.text}>
          <span class="factor">{one.value}</span>
          <span>
            {one.of && <b>{one.of}: </b>}
            {one.text}
          </span>
        </li>
      ))}
    </ul>
  );
}

/* ---- curves ---- */

const SMOOTHINGS = [0, 0.02, 0.05, 0.1, 0.2];

interface ControlsProps {
  choice: Choice;
  choose: (some: Partial<Choice>) => void;
  timed: boolean;
}

function Controls({ choice, choose, timed }: ControlsProps) {
  return (
    <div class="controls">
      <label>
        <input
          type="checkbox"
          checked={choice.log}
          onChange={(event) => choose({ log: event.currentTarget.checked })}
        />{' '}
        losses on a logarithmic scale
      </label>
      <label>
        smoothed over{' '}
        <select
          value={String(choice.smoothing)}
          onChange={(event) => choose({ smoothing: Number(event.currentTarget.value) })}
        >
          {SMOOTHINGS.map((share) => (
            <option key={share} value={String(share)}>
              {share ? `${percentTick(share)} of the points` : 'nothing'}
            </option>
          ))}
        </select>
      </label>
      {timed && (
        <label>
          over{' '}
          <select
            value={choice.over}
            onChange={(event) => choose({ over: event.currentTarget.value as Over })}
          >
            <option value="steps">steps</option>
            <option value="time">time</option>
          </select>
        </label>
      )}
    </div>
  );
}

interface PictureProps {
  metric: Metric;
  spots: Spot[];
  runs: Run[];
  alone: boolean;
  most: number;
  choice: Choice;
}

function Picture({ metric, spots, runs, alone, most, choice }: PictureProps) {
  const { title } = metric;
  return (
    <div class={`picture-${metric.key}`} style={{ '--height': `${metric.height}px` }}>
      <Figure
        {...{ title, spots }}
        empty="None of the runs that are shown has this number."
        draw={(width, selected) =>
          draw({ metric, spots, runs, most, choice, width, selected, title })
        }
        say={(spot) => spoken(spot, metric, alone)}
      />
    </div>
  );
}

function Curves({ runs, shown, choice }: { runs: Run[]; shown: Run[]; choice: Choice }) {
  const pictures = useMemo(() => {
    const found = METRICS.map((metric) => ({
      metric,
      all: runs.map((run) => spotsOf(run, metric, choice)),
    })).filter(({ all }) => all.some((spots) => spots.length > 0));
    /* Neighbours in the grid are of one height. */
    const heights = found.map(({ metric }) => metric.height);
    return found.map(({ metric, all }, i) => ({
      metric: { ...metric, height: Math.max(metric.height, heights[i ^ 1] ?? 0) },
      all,
    }));
  }, [runs, choice]);
  const drawn = useMemo(
    () =>
      pictures.map(({ metric, all }) => ({
        metric,
        spots: all.filter((_, i) => shown.includes(runs[i]!)).flat(),
      })),
    [pictures, shown]
  );
  const most = pictures.reduce(
    (far, { all }) => Math.max(far, ...all.map((spots) => spots[spots.length - 1]?.x ?? 0)),
    0
  );
  return (
    <div class="grid pictures">
      {drawn.map(({ metric, spots }) => (
        <Picture
          key={metric.key}
          {...{ metric, spots, most, choice }}
          runs={shown}
          alone={runs.length === 1}
        />
      ))}
    </div>
  );
}

interface LegendProps {
  runs: Run[];
  hidden: Set<number>;
  toggle: (run: Run) => void;
}

function Legend({ runs, hidden, toggle }: LegendProps) {
  return (
    <ul class="legend" aria-label="Runs; a button hides or shows one">
      {runs.map((run) => (
        <li key={run.index}>
          <button
            type="button"
            aria-pressed={!hidden.has(run.index)}
            title={`${hidden.has(run.index) ? 'show' : 'hide'} ${run.folder}`}
            onClick={() => toggle(run)}
          >
            <Swatch run={run} />
            <span>{run.label}</span>
          </button>
        </li>
      ))}
    </ul>
  );
}

/* ---- all of it ---- */

function Thinned({ runs }: { runs: Run[] }) {
  const thin = runs.filter((run) => run.train.each > 1);
  if (!thin.length) return null;
  const said = thin.map(
    ({ label, train }) =>
      `${runs.length > 1 ? `${label}: ` : ''}${whole(train.lines)} logged steps, ${train.each} a point`
  );
  return (
    <p class="quiet">
      Drawn in less detail than was logged ({said.join('; ')}): a point is a mean, its band goes
      from the lowest to the highest.
    </p>
  );
}

function Origin({ report }: { report: Report }) {
  return (
    <footer>
      <h2>Where it comes from</h2>
      <pre tabIndex={0} aria-label="Command line">
        <code>{report.command}</code>
      </pre>
      <p>
        Training loss: the mean of the steps since the point before; the line is a straight fit to
        the neighbours of each point. Held-out loss and accuracy are evaluations of the model as it
        then was. Tokens a second are those between two points, evaluations and checkpoints
        included. Memory: the most that the process has held so far. A run that was resumed counts
        the time of all its processes.
      </p>
      <p class="quiet">
        keyhole {report.version} ({report.commit}). This file holds everything it shows and loads
        nothing.
      </p>
    </footer>
  );
}

const ABOUT = ['arch', 'model', 'task', 'data'];

function Subtitle({ runs }: { runs: Run[] }) {
  const [run] = runs;
  if (!run) return <p>There are no runs to show.</p>;
  const shared = ABOUT.filter((name) => isShared(runs, name));
  const what = shared.map((name) => optionOf(run.config, name)).filter(Boolean);
  if (runs.length > 1) {
    const early = runs.filter((one) => /of/.test(progress(outcomeOf(one))));
    const going = early.map((one) => `${one.label}: ${progress(outcomeOf(one))}`);
    return <p class="quiet">{[`${runs.length} runs`, ...what, ...going].join(' · ')}</p>;
  }
  const outcome = outcomeOf(run);
  const attn = `attention ${optionOf(run.config, 'attn')}`;
  const time = outcome.seconds === null ? [] : [duration(outcome.seconds)];
  return (
    <p class="quiet">
      <b>{run.label}</b> · {[...what, attn, progress(outcome), ...time].join(' · ')}
    </p>
  );
}

export function Page({ report }: { report: Report }) {
  const { runs } = report;
  const [choice, setChoice] = useState<Choice>({ over: 'steps', log: false, smoothing: 0.1 });
  const choose = (some: Partial<Choice>) => setChoice((before) => ({ ...before, ...some }));
  const [hidden, setHidden] = useState<Set<number>>(() => new Set());
  const shown = useMemo(() => runs.filter((run) => !hidden.has(run.index)), [runs, hidden]);
  const toggle = ({ index }: Run) => {
    const next = new Set(hidden);
    if (!next.delete(index)) next.add(index);
    if (next.size < runs.length) setHidden(next);
  };
  const names = optionsOf(runs);
  const differ = names.filter((name) => !isShared(runs, name));
  const same = names.filter((name) => isShared(runs, name));
  return (
    <>
      <header>
        <h1>How training went</h1>
        <Subtitle runs={runs} />
      </header>
      {runs.length > 0 && (
        <>
          <Findings runs={runs} />
          {runs.length > 1 && <Legend {...{ runs, hidden, toggle }} />}
          <Controls
            {...{ choice, choose }}
            timed={runs.some((run) => run.train.values('seconds').length > 0)}
          />
          <Curves {...{ runs, shown, choice }} />
          <Thinned runs={runs} />
          <div class="numbers">
            <h2>Numbers</h2>
          </div>
          <Numbers runs={runs} />
          {differ.length > 0 && <Differences {...{ runs, names: differ }} />}
          {same.length > 0 && (
            <Options
              run={runs[0]!}
              names={same}
              title={runs.length > 1 ? 'What is the same' : 'Options'}
            />
          )}
        </>
      )}
      <Origin report={report} />
    </>
  );
}
