/* The text as tokens, coloured by surprise. The pointer shows what else could have come; a click holds that open, and a
 * click on one of them goes on from there. */
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { Component } from 'preact';
import type { Next, TextToken } from './contract';
import { sentence } from './api';
import { visible } from './names';
import { asking } from './replay';
import { share } from './say';
import type { Session } from './session';
import { positionOf } from './state';
import { useStore } from './store';

const CHUNK = 32; // tokens that are drawn again together

interface ChunkProps {
  tokens: TextToken[];
  first: number;
  prompt: number;
  surprise: string; // of each token, rounded, so that equal ones are not drawn again
  selected: number;
}

/* A class, because it knows itself when there is nothing to draw again. */
class Chunk extends Component<ChunkProps> {
  override shouldComponentUpdate(next: ChunkProps): boolean {
    const { tokens, prompt, surprise, selected } = this.props;
    return (
      tokens.length !== next.tokens.length ||
      tokens.some((token, i) => token !== next.tokens[i]) ||
      surprise !== next.surprise ||
      selected !== next.selected ||
      prompt !== next.prompt
    );
  }

  override render({ tokens, first, prompt, surprise, selected }: ChunkProps) {
    const levels = surprise.split(',');
    return (
      <span class="chunk">
        {tokens.map((token, i) => {
          const position = first + i;
          const kind = [
            'token',
            position >= prompt && 'output',
            position === prompt && 'boundary',
            token.special && 'special',
            token.continuation && 'continuation',
          ];
          return (
            <span
              key={position}
              id={`token-${position}`}
              data-position={position}
              role="option"
              aria-selected={position === selected}
              class={kind.filter(Boolean).join(' ')}
              style={levels[i] ? { '--surprise-share': `${levels[i]}%` } : undefined}
            >
              {visible(token.text)}
            </span>
          );
        })}
      </span>
    );
  }
}

interface Open {
  position: number;
  x: number;
  y: number;
  locked: boolean;
}

function Alternatives({
  session,
  open,
  close,
}: {
  session: Session;
  open: Open;
  close: () => void;
}) {
  const { position } = open;
  const [found, setFound] = useState<Next['positions'][0] | null>(null);
  const [error, setError] = useState<string | null>(null);
  const token = session.state.text[position];
  useEffect(() => {
    setFound(null);
    setError(null);
    if (position === 0) return;
    const stop = new AbortController();
    const timer = setTimeout(
      () =>
        session.instead(position, stop.signal).then(setFound, (problem) => {
          if (!stop.signal.aborted) setError(sentence(problem));
        }),
      open.locked ? 0 : 80
    );
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, [position]);
  if (!token) return null;
  const surprise = session.lens.surprise[position];
  return (
    <div
      class="popover alternatives"
      style={{ left: `${open.x}px`, top: `${open.y}px` }}
      role="dialog"
      aria-label={`Alternatives to token ${position}`}
    >
      <p>
        <b>{visible(token.text)}</b>{' '}
        <span class="quiet">
          token {position}, id {token.id}
          {typeof surprise === 'number' && `, surprise ${surprise.toFixed(2)} nats`}
        </span>
      </p>
      {position === 0 && <p class="quiet">Nothing stands before the first token.</p>}
      {error && <p class="refused">{error}</p>}
      {!found && !error && position > 0 && <p class="quiet">asking…</p>}
      {found && (
        <ul>
          {found.next.map((one) => (
            <li key={one.id}>
              <button
                type="button"
                {...(one.id === token.id
                  ? { disabled: true, title: 'the token that is there' }
                  : asking('go on from here with this token'))}
                onClick={() => {
                  close();
                  session.branch(position, one.id);
                }}
              >
                <span>{visible(one.text)}</span>
                <i style={{ width: `${70 * (one.probability ?? 0)}px` }} />
                <span class="number">{share(one.probability ?? 0)}</span>
              </button>
            </li>
          ))}
        </ul>
      )}
      {found && (
        <p class="quiet">
          {open.locked ? 'A click goes on from there; Esc closes.' : 'Click to keep this open.'}
        </p>
      )}
    </div>
  );
}

/* Rounded to 4 %, so that nothing is drawn again for less. */
const level = (surprise: number | null | undefined): string =>
  typeof surprise === 'number' ? String(Math.round(Math.min(1, surprise / 9) * 22) * 4) : '';

export function Strip({ session }: { session: Session }) {
  const text = useStore(session.store, (s) => s.text);
  const prompt = useStore(session.store, (s) => s.prompt);
  const selected = useStore(session.store, positionOf);
  const branched = useStore(session.store, (s) => s.view.tokens !== null);
  useStore(session.store, (s) => s.read);
  const box = useRef<HTMLDivElement>(null);
  const [open, setOpen] = useState<Open | null>(null);
  const closing = useRef(0);

  useEffect(() => setOpen(null), [text.length === 0, prompt]);
  useEffect(() => {
    if (!open) return;
    const onKey = (event: KeyboardEvent) => event.key === 'Escape' && setOpen(null);
    const onDown = (event: MouseEvent) => {
      if (!(event.target as Element).closest('.popover, .token')) setOpen(null);
    };
    addEventListener('keydown', onKey);
    addEventListener('mousedown', onDown);
    return () => {
      removeEventListener('keydown', onKey);
      removeEventListener('mousedown', onDown);
    };
  }, [open !== null]);
  useLayoutEffect(() => {
    const element = document.getElementById(`token-${selected}`);
    const place = box.current;
    if (!element || !place || place.matches(':hover')) return;
    if (
      element.offsetTop < place.scrollTop ||
      element.offsetTop + element.offsetHeight > place.scrollTop + place.clientHeight
    )
      place.scrollTop = element.offsetTop - 8;
  }, [selected, text.length === 0]);

  const place = (element: HTMLElement, locked: boolean): Open => {
    const rect = element.getBoundingClientRect();
    return {
      position: Number(element.dataset.position),
      x: Math.max(8, Math.min(rect.left, innerWidth - 268)),
      y: rect.bottom + 2,
      locked,
    };
  };
  const tokenOf = (event: Event): HTMLElement | null => (event.target as Element).closest('.token');
  const onOver = (event: MouseEvent) => {
    clearTimeout(closing.current);
    const element = tokenOf(event);
    if (element && !open?.locked) setOpen(place(element, false));
  };
  const onLeave = () => {
    clearTimeout(closing.current);
    if (!open?.locked) closing.current = window.setTimeout(() => setOpen(null), 250);
  };
  const onClick = (event: MouseEvent) => {
    const element = tokenOf(event);
    if (!element) return;
    const { position } = place(element, true);
    if (open?.locked && open.position === position) return setOpen(null);
    session.select(position);
    setOpen(place(element, true));
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const element = document.getElementById(`token-${selected}`);
    if (event.key !== 'Enter' || !element) return;
    event.preventDefault();
    setOpen(open ? null : place(element, true));
    requestAnimationFrame(() =>
      document.querySelector<HTMLElement>('.alternatives button')?.focus()
    );
  };

  const chunks = [];
  for (let first = 0; first < text.length; first += CHUNK) {
    const tokens = text.slice(first, first + CHUNK);
    const inside = selected >= first && selected < first + CHUNK;
    chunks.push(
      <Chunk
        key={first}
        {...{ tokens, first, prompt }}
        surprise={tokens.map((_, i) => level(session.lens.surprise[first + i])).join(',')}
        selected={inside ? selected : -1}
      />
    );
  }
  return (
    <div class="strip-row">
      <div
        class="strip"
        ref={box}
        role="listbox"
        tabIndex={0}
        aria-label="Prompt and output as tokens, coloured by surprise; Enter shows alternatives"
        aria-activedescendant={text.length ? `token-${selected}` : undefined}
        {...{ onClick, onKeyDown }}
        onMouseOver={onOver}
        onMouseLeave={onLeave}
      >
        {chunks}
      </div>
      {branched && (
        <button
          type="button"
          class="plain"
          {...asking('back to the text of the prompt box')}
          onClick={() => session.unbranch()}
        >
          branched ×
        </button>
      )}
      {open && (
        <div onMouseEnter={() => clearTimeout(closing.current)} onMouseLeave={onLeave}>
          <Alternatives session={session} open={open} close={() => setOpen(null)} />
        </div>
      )}
    </div>
  );
}
