/* A signed value as a colour: red, the ground, blue, from -most to most. */
export const tint = (value: number, most: number, bend = 1): string =>
  `color-mix(in oklab, var(${value < 0 ? '--negative' : '--positive'}) ${Math.round(100 * Math.min(1, Math.abs(value) / most) ** bend)}%, var(--card))`;
