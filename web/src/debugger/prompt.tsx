/* The prompt, with the boundaries of its tokens behind the letters while it is typed. */
import { useRef } from 'preact/hooks';
import type { TextToken } from './contract';
import { UNSAVED, asking, saved } from './replay';
import { count } from './say';
import type { Session } from './session';
import { useStore } from './store';

/* Ends of tokens as offsets into the draft; null where the tokens are not of this draft. A template's tokens lie
 * around it. */
function cuts(draft: string, tokens: TextToken[]): number[] | null {
  const whole = tokens.map(({ text }) => text).join('');
  const start = whole.indexOf(draft);
  if (!draft || start < 0) return null;
  const ends: number[] = [];
  let at = 0;
  for (const { text } of tokens) {
    at += text.length;
    if (at > start && at < start + draft.length) ends.push(at - start);
  }
  return [...ends, draft.length];
}

const SHOWN = 4000; // characters with boundaries; behind them the text is plain

export function PromptBox({ session }: { session: Session }) {
  const draft = useStore(session.store, (s) => s.draft);
  const preview = useStore(session.store, (s) => s.preview);
  const view = useStore(session.store, (s) => s.view);
  const template = useStore(session.store, (s) => s.capabilities?.template ?? false);
  const running = useStore(session.store, (s) => s.run.busy);
  const behind = useRef<HTMLDivElement>(null);
  const ends = cuts(draft, preview.data?.tokens ?? []) ?? [draft.length];
  const pieces = ends.slice(0, 1000).map((end, i) => draft.slice(ends[i - 1] ?? 0, end));
  const known = pieces.length > 1 || (preview.data && draft);
  return (
    <form
      class="prompt"
      onSubmit={(event) => {
        event.preventDefault();
        session.submit();
      }}
    >
      <div class="prompt-box">
        <div class="prompt-behind" ref={behind} aria-hidden="true">
          {known &&
            draft.length <= SHOWN &&
            pieces.map((piece, i) => (
              <span key={i} class={i % 2 ? 'odd' : 'even'}>
                {piece}
              </span>
            ))}{' '}
        </div>
        <textarea
          id="prompt"
          rows={2}
          aria-label="Prompt"
          placeholder="Write a text for the model to go on with"
          spellcheck={false}
          readOnly={saved !== null}
          title={saved ? UNSAVED : undefined}
          value={draft}
          onInput={(event) => session.preview(event.currentTarget.value)}
          onScroll={(event) => {
            if (behind.current) behind.current.scrollTop = event.currentTarget.scrollTop;
          }}
          onKeyDown={(event) => {
            if (!saved && event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
              event.preventDefault();
              session.submit();
            }
          }}
        />
        <span class="prompt-count quiet">
          {preview.error ??
            (preview.data && draft ? count(preview.data.tokens.length, 'token') : '')}
        </span>
      </div>
      <div class="settings">
        <label
          title={
            template
              ? 'the prompt as a user’s message in the model’s chat template'
              : 'the file has no chat template'
          }
        >
          <input
            type="checkbox"
            checked={view.template}
            {...asking(undefined, !template)}
            onChange={(event) => {
              session.show({ template: event.currentTarget.checked });
              session.preview(draft);
            }}
          />{' '}
          template
        </label>
        <label>
          seed{' '}
          <input
            type="number"
            min="0"
            {...asking()}
            value={view.seed}
            onChange={(event) =>
              session.show({
                seed: Math.max(0, Math.floor(Number(event.currentTarget.value) || 0)),
              })
            }
          />
        </label>
        <label title="0: the most probable token each time">
          temperature{' '}
          <input
            type="number"
            min="0"
            max="5"
            step="0.1"
            {...asking()}
            value={view.temperature}
            onChange={(event) =>
              session.show({ temperature: Math.max(0, Number(event.currentTarget.value) || 0) })
            }
          />
        </label>
        <label>
          tokens{' '}
          <input
            type="number"
            min="1"
            max="500"
            {...asking()}
            value={view.most}
            onChange={(event) =>
              session.show({
                most: Math.max(1, Math.floor(Number(event.currentTarget.value) || 1)),
              })
            }
          />
        </label>
        <button type="submit" class="run" {...asking(undefined, !draft)} aria-busy={running}>
          Run
        </button>
      </div>
    </form>
  );
}
