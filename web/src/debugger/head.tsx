/* The row of attention of one head as it was computed: its keys over the whole text, the strongest with the text
 * around them, and what the head writes. */
import type { Head, Scored } from './contract';
import { percent } from '../common/units';
import { visible } from './names';
import { nats, signed } from './say';
import type { Session } from './session';
import { useStore } from './store';

export function Ticks({ session, head }: { session: Session; head: Head }) {
  const length = useStore(session.store, (s) => s.text.length);
  const most = Math.max(...head.weights, 1e-9);
  const unit = 100 / Math.max(1, length);
  return (
    <svg
      class="ticks"
      viewBox="0 0 100 30"
      preserveAspectRatio="none"
      role="img"
      aria-label={`${head.keys.length} kept keys over ${length} positions`}
    >
      <rect x="0" y="27" width="100" height="3" class="document" />
      <rect
        x={(head.position + 1) * unit}
        y="0"
        width={Math.max(0, 100 - (head.position + 1) * unit)}
        height="30"
        class="future"
      />
      {head.keys.map((key, i) => {
        const tall = 2 + 24 * (head.weights[i]! / most);
        return (
          <rect
            key={key}
            x={key * unit}
            y={27 - tall}
            width={Math.max(0.35, unit * 0.7)}
            height={tall}
            class="key"
          >
            <title>{`position ${key}: ${percent(head.weights[i]!)}`}</title>
          </rect>
        );
      })}
    </svg>
  );
}

export function Words({ words, title }: { words: Scored[]; title: string }) {
  return (
    <p class="words">
      <span class="quiet">{title}</span>{' '}
      {words.map((word) => (
        <span
          key={word.id}
          class="word"
          title={word.logit === undefined ? undefined : `${signed(word.logit)} logits`}
        >
          {visible(word.text)}
        </span>
      ))}
    </p>
  );
}

export function HeadCard({ session, head }: { session: Session; head: Head }) {
  return (
    <>
      <p class="facts-line">
        {head.kept === null ? '' : <b>{percent(head.kept)} of the mass kept</b>}
        {head.kept !== null && ' · '}
        {head.keys.length} keys · entropy {nats(head.entropy)} · gives {signed(head.value)} logits
      </p>
      <Ticks session={session} head={head} />
      <ol class="snippets">
        {head.snippets.slice(0, 5).map((one) => (
          <li key={one.position}>
            <button
              type="button"
              title={`go to position ${one.position}`}
              onClick={() => session.select(one.position)}
            >
              <span class="number weight">{percent(one.weight)}</span>
              <span class="place quiet number">{one.position}</span>
              <span class="snippet">
                <span class="before">{one.before && visible(one.before)}</span>
                <mark>{visible(one.token)}</mark>
                {one.after && visible(one.after)}
              </span>
              <span
                class={`number ${Math.abs(one.value) < 0.005 ? 'quiet' : one.value < 0 ? 'negative-text' : 'positive-text'}`}
              >
                {signed(one.value)}
              </span>
            </button>
          </li>
        ))}
      </ol>
      {head.writes && <Words title="writes" words={head.writes.top.slice(0, 8)} />}
      {head.writes && <Words title="and against" words={head.writes.bottom.slice(0, 6)} />}
    </>
  );
}
