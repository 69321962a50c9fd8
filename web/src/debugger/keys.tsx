/* Keys: what they do, and the list of them. */
import { useEffect, useRef } from 'preact/hooks';
import type { Session } from './session';
import { layerOf, positionOf } from './state';
import { useStore } from './store';

const KEYS: [string, string][] = [
  ['← →', 'previous, next position'],
  ['↑ ↓', 'next, previous layer'],
  ['Home End', 'first, last position'],
  ['click', 'selects a cell, holds alternatives open'],
  ['double click', 'the cell at all of its taps'],
  ['Esc', 'lets go: closes what is open, back to the prompt’s last token'],
  ['Enter', 'runs the prompt; Shift-Enter breaks the line'],
  ['/', 'goes to the prompt'],
  ['Ctrl-K', 'goes to a part by name: L12H3, L12N345'],
  ['L', 'writes a label for the open part'],
  ['S', 'saved views and labels'],
  ['Ctrl-Z', 'undoes the last edit'],
  ['?', 'this list'],
];

const isField = (target: EventTarget | null): boolean =>
  target instanceof HTMLElement && target.matches('input, textarea, select');

function arrow(session: Session, key: string): boolean {
  const { state } = session;
  const [position, layer] = [positionOf(state), layerOf(state)];
  const layers = state.capabilities?.model.layers ?? 1;
  const last = state.text.length - 1;
  const to: Record<string, [number, number]> = {
    ArrowLeft: [position - 1, layer],
    ArrowRight: [position + 1, layer],
    ArrowUp: [position, layer + 1],
    ArrowDown: [position, layer - 1],
    Home: [0, layer],
    End: [last, layer],
  };
  const found = to[key];
  if (!found || last < 0) return false;
  session.select(
    Math.max(0, Math.min(found[0], last)),
    Math.max(0, Math.min(found[1], layers - 1))
  );
  return true;
}

export function pressed(session: Session, event: KeyboardEvent): void {
  const control = event.ctrlKey || event.metaKey;
  const key = event.key.toLowerCase();
  if (control && key === 'k') {
    event.preventDefault();
    document.getElementById('goto')?.focus();
  } else if (isField(event.target)) {
    if (event.key === 'Escape') (event.target as HTMLElement).blur();
  } else if (control && key === 'z') {
    event.preventDefault();
    session.undo();
  } else if (control || event.altKey) return;
  else if (event.key === '/') {
    event.preventDefault();
    document.getElementById('prompt')?.focus();
  } else if (event.key === '?') session.store.set({ keys: !session.state.keys });
  else if (event.key === 'Escape') {
    const { keys, shelf } = session.state;
    if (keys || shelf) session.store.set({ keys: false, shelf: false });
    else if (!document.querySelector('.popover'))
      session.select(session.state.prompt - 1, (session.state.capabilities?.model.layers ?? 1) - 1);
  } else if (document.querySelector('dialog[open]')) return;
  else if (key === 'l' || key === 's') {
    event.preventDefault();
    document.getElementById(key === 'l' ? 'label' : 'saved-views')?.click();
  } else if (arrow(session, event.key)) event.preventDefault();
}

export function KeyList({ session }: { session: Session }) {
  const open = useStore(session.store, (s) => s.keys);
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (open && !dialog.current?.open) dialog.current?.showModal();
    if (!open) dialog.current?.close();
  }, [open]);
  return (
    <dialog
      ref={dialog}
      aria-label="Keys"
      onClose={() => session.store.set({ keys: false })}
      onClick={(event) => event.target === dialog.current && dialog.current?.close()}
    >
      <h2>Keys</h2>
      <dl>
        {KEYS.map(([name, what]) => (
          <div key={name}>
            <dt>
              <kbd>{name}</kbd>
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <form method="dialog">
        <button type="submit">Close</button>
      </form>
    </dialog>
  );
}
