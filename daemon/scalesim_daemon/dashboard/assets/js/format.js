// Numbers, times and distances as people read them. Pure.
export const NOTHING = "–";
const UNITS = { step: ["step", "steps"], sim_seconds: ["simulated s", "simulated s"], wall_seconds: ["s", "s"] };

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const clockTime = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export const count = (value) => (value == null ? NOTHING : whole.format(value));
export const figure = (value) => (value == null ? NOTHING : short.format(value));
export const timeOf = (at) => clockTime.format(at * 1000);

// A number that need not be exact.
export function large(value) {
  if (value == null) return NOTHING;
  return (Math.abs(value) < 10_000 ? whole : compact).format(value);
}

// A share in 0..1.
export function share(value, digits = 0) {
  return value == null || Number.isNaN(value) ? NOTHING : `${(value * 100).toFixed(digits)} %`;
}

export function bytes(value) {
  if (value == null) return NOTHING;
  const power = Math.min(4, Math.floor(Math.log2(Math.max(1, value)) / 10));
  return `${short.format(value / 1024 ** power)} ${["B", "KiB", "MiB", "GiB", "TiB"][power]}`;
}

// A length of wall time in seconds.
export function duration(seconds) {
  if (seconds == null || !Number.isFinite(seconds)) return NOTHING;
  if (seconds > 0 && seconds < 1) return `${short.format(seconds * 1000)} ms`;
  if (seconds < 120) return `${short.format(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

// A distance in units of a clock, with wall seconds where these are something else.
export function distance(value, kind, seconds) {
  if (value == null || !Number.isFinite(value)) return "none foreseen";
  if (value === 0) return "now";
  const [one, many] = UNITS[kind] ?? ["", ""];
  const told = `${figure(value)} ${value === 1 ? one : many}`;
  return kind === "wall_seconds" || seconds == null ? told : `${told} (${duration(seconds)})`;
}

export const unitName = (kind) => (UNITS[kind] ?? ["", "seconds"])[1];

// The part of an agent's key that is its own: the rest names its simulation.
export const ownName = (key) => key.slice(key.indexOf("/") + 1);
