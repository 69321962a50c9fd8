/* A line through noise: at each point the straight line that fits its neighbours best, near ones counting
 * more (weights fall evenly to 0 at the end of the window). Other than a moving average it neither lags
 * behind a curve that falls nor flattens its ends; it stays within what its neighbours say. Curves of
 * training are steep where they begin: there a window reaches back no further than half the way. */
export function smooth(values: number[], half: number): number[] {
  if (half < 1) return values;
  return values.map((_, i) => {
    const reach = Math.min(half, 1 + (i >> 1));
    let [s0, s1, s2, t0, t1] = [0, 0, 0, 0, 0];
    let [least, most] = [Infinity, -Infinity];
    const last = Math.min(values.length - 1, i + reach);
    for (let j = Math.max(0, i - reach); j <= last; j++) {
      const d = j - i;
      const value = values[j]!;
      const weight = 1 - Math.abs(d) / (reach + 1);
      s0 += weight;
      s1 += weight * d;
      s2 += weight * d * d;
      t0 += weight * value;
      t1 += weight * d * value;
      least = Math.min(least, value);
      most = Math.max(most, value);
    }
    const det = s0 * s2 - s1 * s1;
    const fitted = det > 0 ? (s2 * t0 - s1 * t1) / det : t0 / s0;
    return Math.max(least, Math.min(most, fitted));
  });
}
