/* Tokens and parts as a reader sees them, and names as people type them. */

/* The leading space as a dot, line ends as arrows. */
export function visible(text: string): string {
  if (text === '') return '∅';
  return text
    .replace(/^ +/, (spaces) => '·'.repeat(spaces.length))
    .replace(/\r?\n/g, '↵')
    .replace(/\t/g, '→')
    .replace(/ $/, '·');
}
/* And back, for what is typed into a field. */
export const typed = (text: string): string =>
  text.replace(/^·+/, (dots) => ' '.repeat(dots.length)).replace(/↵/g, '\n');

export interface Part {
  kind: 'head' | 'neuron';
  layer: number;
  index: number;
}

/* L12H3, L12N345, L12.N345, and LM-Debugger's L12D345, in any case. */
export function parsePart(text: string): Part | null {
  const found = /^L(\d+)\.?([HND])(\d+)$/i.exec(text.trim());
  if (!found) return null;
  return {
    kind: found[2]!.toUpperCase() === 'H' ? 'head' : 'neuron',
    layer: Number(found[1]),
    index: Number(found[3]),
  };
}
export const nameOf = ({ kind, layer, index }: Part): string =>
  `L${layer}${kind === 'head' ? 'H' : 'N'}${index}`;

/* An edit is PART:OPERATION...; the page's own switches are zero and scale. */
export const partOf = (edit: string): string => edit.slice(0, Math.max(0, edit.indexOf(':')));

/* What the edits make of a part: 0 off, 1 as it is; null for what a slider cannot show. */
export function scaleOf(edits: string[], part: string): number | null {
  const edit = edits.find((one) => partOf(one) === part);
  if (!edit) return 1;
  if (/:zero$/.test(edit)) return 0;
  const scale = /:scale=(-?[\d.]+)$/.exec(edit);
  return scale ? Number(scale[1]) : null;
}
export function withScale(edits: string[], part: string, scale: number): string[] {
  const others = edits.filter((one) => partOf(one) !== part);
  if (scale === 1) return others;
  return [...others, scale === 0 ? `${part}:zero` : `${part}:scale=${Number(scale.toFixed(2))}`];
}
