// Reading /metrics: samples of the text format, and quantiles of histograms between two readings.

const LINE = /^(\w+)(?:\{(.*)\})? (\S+)$/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;

/** Samples by name: [{labels, value}]. */
export function samples(text) {
  const found = new Map();
  for (const line of text.split("\n")) {
    const parts = LINE.exec(line);
    if (!parts) continue;
    const [, name, given = "", value] = parts;
    const labels = Object.fromEntries([...given.matchAll(LABEL)].map(([, label, text]) => [label, text]));
    if (!found.has(name)) found.set(name, []);
    found.get(name).push({ labels, value: Number(value) });
  }
  return found;
}

const matches = (labels, wanted) => Object.entries(wanted).every(([name, value]) => labels[name] === value);

/** The sum of the samples that have these labels; 0 where there are none. */
export function total(reading, name, wanted = {}) {
  return (reading.get(name) ?? []).filter(({ labels }) => matches(labels, wanted)).reduce((sum, { value }) => sum + value, 0);
}

/** Cumulative counts by upper bound, ascending, summed over all series with these labels. */
export function buckets(reading, name, wanted = {}) {
  const counts = new Map();
  for (const { labels, value } of reading.get(`${name}_bucket`) ?? []) {
    if (!matches(labels, wanted)) continue;
    const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
    counts.set(bound, (counts.get(bound) ?? 0) + value);
  }
  return [...counts].sort(([a], [b]) => a - b);
}

/** What was counted between two readings; `earlier` may be empty. */
export function between(earlier, later) {
  const before = new Map(earlier);
  return later.map(([bound, count]) => [bound, count - (before.get(bound) ?? 0)]);
}

/** As Prometheus' histogram_quantile: linear inside the bucket; null where nothing was counted. */
export function quantile(share, counts) {
  const all = counts.length ? counts.at(-1)[1] : 0;
  if (all <= 0) return null;
  const rank = share * all;
  const at = counts.findIndex(([, count]) => count >= rank);
  const [bound, count] = counts[at];
  const [lower, below] = at > 0 ? counts[at - 1] : [0, 0];
  if (bound === Infinity) return lower;
  return count === below ? bound : lower + ((bound - lower) * (rank - below)) / (count - below);
}
