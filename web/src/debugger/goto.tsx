/* A part by its name: a head or a neuron, as anyone writes it. */
import { nameOf, parsePart } from './names';
import { asking } from './replay';
import type { Session } from './session';

export function GoTo({ session }: { session: Session }) {
  return (
    <input
      id="goto"
      class="goto"
      aria-label="Go to a part by name"
      placeholder="L12H3, L12N345"
      {...asking('Ctrl-K')}
      spellcheck={false}
      autocomplete="off"
      onInput={(event) => event.currentTarget.setCustomValidity('')}
      onKeyDown={(event) => {
        if (event.key !== 'Enter') return;
        const part = parsePart(event.currentTarget.value);
        if (part) {
          event.currentTarget.value = '';
          event.currentTarget.blur();
          session.open(nameOf(part));
        } else {
          event.currentTarget.setCustomValidity(
            'A head or a neuron expected, such as L12H3 or L12N345.'
          );
          event.currentTarget.reportValidity();
        }
      }}
    />
  );
}
