// All agents as the stream tells of them: where their memory is, and how far each is by its source's clock. Pure.
export const TIERS = ["device", "host", "storage", "nowhere"];
const PLACE = { device: 0, host: 1, storage: 2, remote: 2 };

export class Agents {
  byKey = new Map();
  clocks = {};
  #counts = null;

  get size() {
    return this.byKey.size;
  }

  // Take everything anew. Agents that were known stay the same objects: the map moves them from where they are.
  snapshot({ clocks, agents }) {
    const known = this.byKey;
    this.byKey = new Map();
    this.clocks = clocks;
    this.#counts = null;
    for (const told of agents) this.#take(told, known);
  }

  changed({ changed, gone }) {
    this.#counts = null;
    for (const key of gone) this.byKey.delete(key);
    for (const told of changed) this.#take(told, this.byKey);
  }

  // Invocation distance in units of the agent's clock, infinite where no invocation is foreseen.
  distance(agent) {
    const clock = agent.due === null ? undefined : this.clocks[agent.source];
    return clock === undefined ? Infinity : Math.max(0, agent.due - clock.now);
  }

  // The same in wall seconds, by which agents of several clocks are compared.
  seconds(agent) {
    const distance = this.distance(agent);
    return distance === Infinity ? Infinity : distance * (this.clocks[agent.source].pace ?? 1);
  }

  kind(agent) {
    return this.clocks[agent.source]?.kind ?? null;
  }

  // The kind of clock that all sources have, null where they differ: then distances are compared in seconds.
  get commonKind() {
    const kinds = new Set(Object.values(this.clocks).map((clock) => clock.kind));
    return kinds.size === 1 ? kinds.values().next().value : null;
  }

  // The first `count` agents, those that call now first and then the nearest, of those that are meant.
  nearest(count, meant = () => true) {
    const found = [];
    for (const agent of this.byKey.values()) {
      if (!meant(agent)) continue;
      const rank = agent.in_flight ? -1 : this.seconds(agent);
      const last = found[found.length - 1];
      if (found.length === count && !before(rank, agent, last)) continue;
      let low = 0;
      for (let high = found.length; low < high; ) {
        const middle = (low + high) >> 1;
        if (before(rank, agent, found[middle])) high = middle;
        else low = middle + 1;
      }
      found.splice(low, 0, { rank, agent });
      if (found.length > count) found.pop();
    }
    return found.map((one) => one.agent);
  }

  // How many agents there are in all, per tier, being served, pinned, and with an invocation foreseen.
  get counts() {
    if (this.#counts !== null) return this.#counts;
    const counts = { all: this.size, tiers: [0, 0, 0, 0], calling: 0, pinned: 0, foreseen: 0 };
    for (const agent of this.byKey.values()) {
      counts.tiers[agent.place] += 1;
      counts.calling += agent.in_flight > 0;
      counts.pinned += agent.pinned;
      counts.foreseen += agent.due !== null;
    }
    this.#counts = counts;
    return counts;
  }

  #take(told, known) {
    const agent = known.get(told.key) ?? {};
    Object.assign(agent, told);
    agent.place = PLACE[told.tier] ?? 3;
    agent.sought ??= told.key.toLowerCase();
    this.byKey.set(told.key, agent);
  }
}

const before = (rank, agent, other) =>
  rank < other.rank || (rank === other.rank && agent.key < other.agent.key);
