// How far from the left edge a distance is drawn: near ones have more room. Pure.
const STEPS = [1, 2, 5];

// The next of 1, 2, 5, 10, 20, 50 ... that is not less.
export function niceCeiling(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1e-9)));
  return STEPS.map((step) => step * power).find((nice) => nice >= value * 0.999999) ?? 10 * power;
}

// An axis from 0 to at least `largest`. It grows at once and shrinks late, so that it stands still most of the time.
export class Axis {
  max = 10;

  fit(largest) {
    const wanted = Math.max(2, niceCeiling(largest));
    if (wanted > this.max || wanted < this.max / 4) this.max = wanted;
  }

  // 0 at a distance of 0, 1 at the axis' end.
  at(distance) {
    return Math.log1p(Math.min(distance, this.max) * this.#spread) / Math.log1p(this.max * this.#spread);
  }

  // Distances of at least `least` to name, far enough from one another: at least `gap` of the axis' length.
  ticks(gap, least) {
    const ticks = [0];
    for (let power = least; power <= this.max; power *= 10) {
      for (const step of STEPS) {
        const value = step * power;
        if (value > this.max * 1.000001 || this.at(value) - this.at(ticks.at(-1)) < gap) continue;
        ticks.push(Number(value.toPrecision(1)));
      }
    }
    return ticks;
  }

  // The first units have the same room on a long axis as on a short one.
  get #spread() {
    return 20 / (20 + this.max * 0.05);
  }
}

// Two numbers in 0..1 that an agent always has: FNV-1a over its key.
export function scatter(key) {
  let hash = 0x811c9dc5;
  for (let index = 0; index < key.length; index++) {
    hash = Math.imul(hash ^ key.charCodeAt(index), 0x01000193);
  }
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
  hash = (hash ^ (hash >>> 12)) >>> 0;
  return [(hash & 0xffff) / 0xffff, (hash >>> 16) / 0xffff];
}
