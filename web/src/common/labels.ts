/* Names of curves behind their ends: how wide they are, and how they get out of each other's way. */

export const LINE = 13; // pixels of a line of a label
const GAP = 3; // between labels

export interface Named {
  lines: string[];
  at: number; // pixels from the top, the middle of the text
}

const paper = document.createElement('canvas').getContext('2d');

/* How wide a label will be, in pixels. */
export function widthOf(text: string): number {
  if (!paper) return 8 * text.length;
  paper.font = `600 12px ${getComputedStyle(document.body).fontFamily}`;
  return paper.measureText(text).width;
}

export function shorten(text: string, most: number): string {
  if (text.length <= most) return text;
  const half = Math.floor((most - 1) / 2);
  return `${text.slice(0, most - 1 - half)}…${text.slice(text.length - half)}`;
}

const heightOf = (label: Named): number => label.lines.length * LINE + GAP;

/* Neighbours that overlap become a block around their middle; blocks that meet, one block. */
export function spread(labels: Named[], top: number, bottom: number): void {
  const blocks: { members: Named[]; size: number; wish: number }[] = [];
  const inside = (wish: number, size: number): number =>
    Math.max(top + size / 2, Math.min(bottom - size / 2, wish));
  for (const label of [...labels].sort((a, b) => a.at - b.at)) {
    const own = heightOf(label);
    let block = { members: [label], size: own, wish: inside(label.at, own) };
    for (let before = blocks.pop(); before; before = blocks.pop()) {
      if (before.wish + before.size / 2 <= block.wish - block.size / 2) {
        blocks.push(before);
        break;
      }
      const n = before.members.length;
      const m = block.members.length;
      const size = before.size + block.size;
      block = {
        members: [...before.members, ...block.members],
        size,
        wish: inside((before.wish * n + block.wish * m) / (n + m), size),
      };
    }
    blocks.push(block);
  }
  for (const { members, size, wish } of blocks) {
    let y = wish - size / 2;
    for (const label of members) {
      label.at = y + heightOf(label) / 2;
      y += heightOf(label);
    }
  }
}
