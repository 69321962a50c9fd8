/* The bar at the top: what runs, how fast, whether it proved itself. */
import { bytes } from '../common/units';
import { setKey } from './api';
import { GoTo } from './goto';
import type { Session } from './session';
import { useStore } from './store';
import { applyTheme, isDark } from './theme';

const SIGNS = new Map([
  [true, '✓'],
  [false, '✗'],
  [null, '–'],
]);

/* Whether the identities hold on this file: a mark, and the details at the pointer or the focus. */
function ChecksMark({ session }: { session: Session }) {
  const { data, busy, error } = useStore(session.store, (s) => s.checks);
  const checks = data?.checks ?? [];
  const failed = checks.filter(({ passed }) => passed === false).length;
  const unknown = checks.filter(({ passed }) => passed === null).length;
  const kind = failed ? 'bad' : data && !unknown ? 'good' : '';
  const said = error
    ? 'checks not run'
    : !data
      ? busy
        ? 'checking…'
        : 'not yet checked'
      : failed
        ? `✗ ${failed} of ${checks.length} checks failed`
        : unknown
          ? `${checks.length - unknown} of ${checks.length} checks passed`
          : `✓ ${checks.length} checks`;
  const told = checks.map(({ name, passed, detail }) => {
    const outcome = passed === null ? 'could not be run' : passed ? 'passed' : 'failed';
    return `${name} ${outcome}: ${detail}`;
  });
  return (
    <span
      class={`mark ${kind}`}
      tabIndex={0}
      role="img"
      aria-label={`Identity checks: ${error ?? (told.join('; ') || said)}`}
    >
      {said}
      <span class="mark-told" aria-hidden="true">
        {error ??
          (data
            ? null
            : 'The identities that inspection stands on are proved on this file when nobody waits.')}
        {checks.map(({ name, passed, detail }) => (
          <span key={name} class={passed === false ? 'bad' : ''}>
            {SIGNS.get(passed)} <b>{name}</b> {passed === null && 'could not be run: '}
            {detail}
          </span>
        ))}
      </span>
    </span>
  );
}

export function TopBar({ session }: { session: Session }) {
  const capabilities = useStore(session.store, (s) => s.capabilities);
  const rate = useStore(session.store, (s) => s.rate);
  const peak = useStore(session.store, (s) => s.peak);
  const error = useStore(session.store, (s) => s.error);
  useStore(session.store, (s) => s.view.theme);
  const next = isDark() ? 'light' : 'dark';
  return (
    <header class="top">
      <h1>keyhole</h1>
      {capabilities && (
        <dl class="facts">
          <div class="file">
            <dt>file</dt>
            <dd title={`${capabilities.model.name}, ${capabilities.model.architecture}`}>
              {capabilities.model.file}
            </dd>
          </div>
          <div>
            <dt>weights</dt>
            <dd>{capabilities.model.quantisation}</dd>
          </div>
          <div>
            <dt>attention</dt>
            <dd>{capabilities.attn}</dd>
          </div>
          <div>
            <dt>speed</dt>
            <dd>{rate === null ? '–' : `${rate.toFixed(1)}\u00a0tokens/s`}</dd>
          </div>
          <div>
            <dt>memory</dt>
            <dd title="the most so far">{peak === null ? '–' : bytes(peak)}</dd>
          </div>
        </dl>
      )}
      {capabilities?.inspect && <ChecksMark session={session} />}
      <GoTo session={session} />
      <button
        type="button"
        class="plain theme"
        aria-label={`Switch to the ${next} theme`}
        title={`${next} theme`}
        onClick={() => {
          applyTheme(next);
          session.show({ theme: next });
        }}
      >
        {next === 'dark' ? '☾' : '☀'}
      </button>
      {error && (
        <p class="refused" role="alert">
          {error}
          {!capabilities && <KeyField session={session} />}
        </p>
      )}
    </header>
  );
}

/* Where the server asks for a key. */
function KeyField({ session }: { session: Session }) {
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        setKey(String(new FormData(event.currentTarget).get('key') ?? ''));
        void session.start();
      }}
    >
      <input
        name="key"
        type="password"
        aria-label="API key, where the server has one"
        placeholder="API key, if it has one"
        autocomplete="off"
      />
      <button type="submit">Try again</button>
    </form>
  );
}
