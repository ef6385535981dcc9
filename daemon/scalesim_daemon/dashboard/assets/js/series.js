// Curves from the history's counts: what happened within a sliding window up to each sample. Pure.
export const WINDOW = 6;

const times = (samples) => samples.map((sample) => sample.at);

// What was counted in the window up to each sample; null where that isn't known, or the daemon began anew meanwhile.
function grown(samples, name) {
  return samples.map((sample, index) => {
    const from = samples[Math.max(0, index - WINDOW)];
    if (sample[name] == null || from[name] == null || index === 0) return null;
    const growth = sample[name] - from[name];
    return growth < 0 ? null : growth;
  });
}

const ratio = (above, below) =>
  above.map((value, index) => (value === null || !below[index] ? null : value / below[index]));

export function hitShare(samples) {
  return [times(samples), ratio(grown(samples, "found_tokens"), grown(samples, "prefix_tokens"))];
}

// Mean time to first token in seconds.
export function firstToken(samples) {
  return [times(samples), ratio(grown(samples, "first_token_seconds"), grown(samples, "first_tokens"))];
}

// Prefetches a minute: those that a call found, and those that were gone when it came.
export function prefetches(samples) {
  const minutes = samples.map((sample, index) => (sample.at - samples[Math.max(0, index - WINDOW)].at) / 60);
  const perMinute = (name) => ratio(grown(samples, name), minutes);
  return [times(samples), perMinute("prefetches_used"), perMinute("prefetches_wasted")];
}

export function order(samples) {
  return [times(samples), samples.map((one) => one.order_accuracy), samples.map((one) => one.recency_accuracy)];
}

// The latest value of a curve that is known.
export const latest = (values) => values.findLast((value) => value !== null) ?? null;
