// The newest state that a source has said, kept as the shortest log that says it again.

import { agentRegistered } from "./events.js";
import { pack } from "./wire.js";

const TIMELESS = new Set(["agent.registered", "memory.bound", "memory.unbound"]);
const OUTLIVES_CLOCK = new Set([...TIMELESS, "invocation.started"]);
const ENDED_BY_INVOCATION = ["agent.activity_started", "agent.woken", "agent.idled"];
const PLAN = "plan.declared";

/**
 * Takes in events and gives back those that still hold, packed, in the order in which they were said.
 *
 * An event whose meaning depends on when it was said is given back with `now`, the clock value of then, and an
 * activity's `for` as `until`. Memory is bounded by agents and invocations that run.
 */
export class NewestState {
  now = null;
  #said = new Map(); // key -> { type, packed }, in order
  #owned = new Map(); // agent -> its keys
  #plan = null; // { event, now }
  #planned = new Set(); // those of the plan who are left

  apply(event) {
    if (event.type === "step.advanced") this.#advance(event.now);
    else if (event.type === "agent.released") this.#release(event.agent);
    else if (event.type === PLAN) {
      this.#plan = { event, now: this.now };
      this.#planned = new Set(event.agents);
      this.#put(PLAN, event);
    } else this.#applyToAgent(event);
  }

  snapshot() {
    if (this.#plan) {
      const rest = stamped(restOf(this.#plan.event, this.#planned), this.#plan.now);
      this.#said.set(PLAN, { type: PLAN, packed: pack(rest) });
    }
    return Array.from(this.#said.values(), ({ packed }) => packed);
  }

  #applyToAgent(event) {
    const { type, agent } = event;
    if (!this.#owned.has(agent)) {
      this.#owned.set(agent, new Set());
      this.#put(key("agent.registered", agent), agentRegistered(agent));
    }
    const running = key("invocation.started", agent, event.request);
    switch (type) {
      case "agent.registered":
        break;
      case "invocation.started":
        for (const ended of ENDED_BY_INVOCATION) this.#said.delete(key(ended, agent));
        this.#planned.delete(agent);
        this.#put(running, event);
        break;
      case "invocation.finished":
        this.#said.delete(running);
        this.#owned.get(agent).delete(running);
        break;
      case "memory.unbound":
        this.#put(key("memory.bound", agent), event);
        break;
      default:
        if (type === "agent.idled") this.#planned.delete(agent);
        this.#put(key(type, agent), event);
    }
  }

  #advance(now) {
    if (this.now !== null && now < this.now) {
      // The simulation starts over: what it foresaw is void, what the agents are is not.
      for (const [name, { type }] of this.#said) if (!OUTLIVES_CLOCK.has(type)) this.#said.delete(name);
      this.#plan = null;
      this.#planned.clear();
    }
    this.now = now;
  }

  #release(agent) {
    for (const name of this.#owned.get(agent) ?? []) this.#said.delete(name);
    this.#owned.delete(agent);
    this.#planned.delete(agent);
  }

  #put(name, event) {
    this.#said.delete(name);
    this.#said.set(name, { type: event.type, packed: pack(stamped(event, this.now)) });
    this.#owned.get(event.agent)?.add(name);
  }
}

function key(type, agent, request) {
  return JSON.stringify([type, agent, request]);
}

function stamped(event, now) {
  if (now === null || TIMELESS.has(event.type)) return event;
  const { for: units, ...wire } = event;
  return { ...wire, now, ...(units === undefined ? {} : { until: now + units }) };
}

// A plain order stays whole, as its places are its times.
function restOf(plan, agents) {
  if (plan.at === undefined && plan.probabilities === undefined) return plan;
  const stays = (_, index) => agents.has(plan.agents[index]);
  return { ...plan, agents: plan.agents.filter(stays), probabilities: plan.probabilities?.filter(stays) };
}
