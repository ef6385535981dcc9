// What the page knows. It is changed by the link, by reports and by people; `changed` asks for a frame that shows it.
import { Agents } from "./agents.js";

const MOST_DECISIONS = 200;
const MOST_SAMPLES = 720;
const MOST_SHOWN = 40;

// What tells one decision from all others.
export const decisionName = ({ at, engine, step }) => `${at} ${engine} ${step.key} ${step.action}`;

export class Model {
  agents = new Agents();
  link = { state: "connecting", why: "", retryAt: 0 };
  role = null;
  tokens = false;
  version = "";
  mode = null;
  engines = null;
  plan = null;
  report = null;
  estimators = null;
  sources = null;
  decisions = [];
  samples = [];
  every = 5;
  filter = "";
  shown = MOST_SHOWN;
  selected = null;
  detail = null;
  asking = false;
  toasts = [];

  #changed;

  constructor(changed) {
    this.#changed = changed;
  }

  // Set fields, and ask for a frame.
  set(fields) {
    Object.assign(this, fields);
    this.#changed();
  }

  // Take in one message of the stream.
  hear({ name, data }) {
    if (name === "snapshot") {
      this.agents.snapshot(data);
      this.mode = data.mode;
      this.link = { state: "live", why: "", retryAt: 0 };
    } else if (name === "agents") this.agents.changed(data);
    else if (name === "clocks") this.agents.clocks = data;
    else if (name === "mode") this.mode = data.mode;
    else if (name === "decisions") this.decided(data);
    this.#changed();
  }

  // Add decisions, each of which may be known already, to those that are.
  decided(decisions) {
    const all = new Map([...this.decisions, ...decisions].map((one) => [decisionName(one), one]));
    const latestFirst = [...all.values()].sort((one, other) => other.at - one.at);
    this.set({ decisions: latestFirst.slice(0, MOST_DECISIONS) });
  }

  // Add samples of the history to those that are known.
  remember({ every, samples }) {
    this.every = every;
    if (samples.length) this.samples = [...this.samples, ...samples].slice(-MOST_SAMPLES);
  }

  // Whether an agent is one of those that are searched for. `filter` is in small letters.
  meant(agent) {
    return this.filter === "" || agent.sought.includes(this.filter);
  }

  get mayAct() {
    return this.role === "admin" && this.link.state === "live";
  }

  // Why buttons do nothing here, empty where they do.
  get whyNot() {
    if (this.link.state !== "live") return "The daemon isn't connected.";
    if (this.role === "admin") return "";
    return "Your token only reads. Sign in with an admin's token to act.";
  }
}

export { MOST_SHOWN };
