/* Tables: the last numbers of every run, and its options. */
import { useCallback } from 'preact/hooks';
import { Sample } from '../common/figure';
import { bytes, duration, figures, percent } from '../common/units';
import { swatch } from './curves';
import { number, optionOf, outcomeOf, whole, type Outcome, type Run } from './runs';

export function Swatch({ run }: { run: Run }) {
  return <Sample draw={useCallback(() => swatch(run), [run])} />;
}

/* "120 of 200 steps" */
export function progress({ step, planned, reached }: Outcome): string {
  if (planned === null || step >= planned) return `${whole(step)} steps`;
  return `${whole(step)} of ${whole(planned)} steps${reached ? ', its accuracy reached' : ''}`;
}

interface Cell {
  text: string;
  best: boolean;
}
interface Column {
  title: string;
  better?: 1 | -1; // the lowest, the highest is best
  of: (run: Run, outcome: Outcome) => number | null;
  say: (value: number) => string;
}

const COLUMNS: Column[] = [
  { title: 'training loss', of: (run) => number(run.last.loss), say: figures },
  { title: 'accuracy', of: (run) => number(run.last.accuracy), say: percent },
  { title: 'held-out loss', better: 1, of: (run) => number(run.lastEval?.eval_loss), say: figures },
  { title: 'lowest', better: 1, of: (run) => number(run.best?.eval_loss), say: figures },
  { title: 'at step', of: (run) => number(run.best?.step), say: whole },
  {
    title: 'held-out accuracy',
    better: -1,
    of: (run) => number(run.lastEval?.eval_accuracy),
    say: percent,
  },
  { title: 'tokens/s', better: -1, of: (_, { rate }) => rate, say: whole },
  { title: 'memory', better: 1, of: (_, { bytes }) => bytes, say: bytes },
  { title: 'time', of: (_, { seconds }) => seconds, say: duration },
];

function cellsOf(column: Column, runs: Run[]): Cell[] {
  const values = runs.map((run) => column.of(run, outcomeOf(run)));
  const texts = values.map((value) => (value === null ? '' : column.say(value)));
  const [best] = values
    .flatMap((value, i) => (value === null ? [] : [{ value, text: texts[i]! }]))
    .sort((a, b) => (column.better ?? 1) * (a.value - b.value));
  const differ = column.better !== undefined && new Set(texts).size > 1;
  return texts.map((text) => ({ text, best: differ && text === best?.text }));
}

export function Numbers({ runs }: { runs: Run[] }) {
  const columns = COLUMNS.map((column) => ({ column, cells: cellsOf(column, runs) })).filter(
    ({ cells }) => cells.some(({ text }) => text)
  );
  return (
    <div class="scroll wide" tabIndex={0} role="region" aria-label="Final numbers">
      <table>
        <caption>{runs.length > 1 ? 'Where the runs ended' : 'Where the run ended'}</caption>
        <thead>
          <tr>
            <th scope="col">run</th>
            <th scope="col" class="number">
              steps
            </th>
            {columns.map(({ column }) => (
              <th key={column.title} scope="col" class="number">
                {column.title}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {runs.map((run, i) => (
            <tr key={run.index}>
              <th scope="row">
                <Swatch run={run} /> {run.label}
              </th>
              <td class="number">{progress(outcomeOf(run)).replace(/ steps.*/, '')}</td>
              {columns.map(({ column, cells }) => (
                <td key={column.title} class={`number${cells[i]!.best ? ' best' : ''}`}>
                  {cells[i]!.text}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export function Differences({ runs, names }: { runs: Run[]; names: string[] }) {
  return (
    <div class="scroll wide" tabIndex={0} role="region" aria-label="Options that differ">
      <table class="differences">
        <caption>What differs</caption>
        <thead>
          <tr>
            <th scope="col">option</th>
            {runs.map((run) => (
              <th key={run.index} scope="col">
                <Swatch run={run} /> {run.label}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {names.map((name) => (
            <tr key={name}>
              <th scope="row">
                <code>{name}</code>
              </th>
              {runs.map((run) => (
                <td key={run.index}>{optionOf(run.config, name) ?? ''}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export function Options({ run, names, title }: { run: Run; names: string[]; title: string }) {
  return (
    <section class="card options">
      <h3>{title}</h3>
      <dl>
        {names.map((name) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{optionOf(run.config, name)}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}
