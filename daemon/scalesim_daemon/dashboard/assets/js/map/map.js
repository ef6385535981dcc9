// The map itself: keeps agents where they belong, moves them there, and finds the one that is pointed at.
import { unitName } from "../format.js";
import { onTheme } from "../theme.js";
import { Layout, radiusFor } from "./layout.js";
import { Painter } from "./paint.js";
import { Axis } from "./scale.js";

const EASE_MS = 130;
const STILL = 0.3;
const REACH = 14;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

export class AgentMap {
  pointed = null;

  #canvas;
  #model;
  #wake;
  #painter;
  #axis = new Axis();
  #layout = null;
  #agents = [];
  #radius = 0;
  #moving = false;
  #dirty = true;
  #fresh = true;
  #last = 0;

  // `wake` asks for a frame.
  constructor(canvas, model, wake) {
    this.#canvas = canvas;
    this.#model = model;
    this.#wake = wake;
    this.#painter = new Painter(canvas);
    new ResizeObserver(() => this.#resized()).observe(canvas.parentElement);
    onTheme(() => this.#resized());
  }

  // The model has changed: agents may have to move.
  update() {
    const { agents } = this.#model;
    this.#agents = [...agents.byKey.values()];
    this.#dirty = true;
    if (radiusFor(this.#agents.length) !== this.#radius) this.#layout = null;
    if (!this.#measure()) return;
    const kind = agents.commonKind;
    const distances = this.#agents.map((agent) => (kind === null ? agents.seconds(agent) : agents.distance(agent)));
    let largest = 0;
    for (const distance of distances) if (distance !== Infinity && distance > largest) largest = distance;
    this.#axis.fit(largest);
    for (const [index, agent] of this.#agents.entries()) {
      this.#layout.place(agent, distances[index], this.#axis, kind === "step", this.#radius);
      if (agent.x === undefined || this.#fresh || calm.matches) {
        agent.x = agent.toX;
        agent.y = agent.toY;
      }
    }
    this.#fresh = this.#agents.length === 0;
    this.#moving = true;
    if (this.pointed && !agents.byKey.has(this.pointed.key)) this.pointed = null;
  }

  // Draw a frame at `now` in milliseconds, if anything is to be drawn.
  frame(now) {
    const passed = Math.min(64, now - this.#last);
    this.#last = now;
    if (this.#moving) this.#move(passed);
    else if (!this.#dirty) return;
    this.#dirty = false;
    if (this.#layout === null) return;
    const { agents, filter, selected } = this.#model;
    this.#painter.paint(this.#layout, this.#axis, {
      agents: this.#agents,
      counts: agents.counts,
      unit: unitName(agents.commonKind),
      discrete: agents.commonKind === "step",
      meant: filter === "" ? null : (agent) => this.#model.meant(agent),
      selected: agents.byKey.get(selected),
      pointed: this.pointed,
    });
    if (this.#moving) this.#wake();
  }

  // Return the agent at a point in CSS pixels, null where none is near.
  at(x, y) {
    let found = null;
    let least = REACH ** 2;
    for (const agent of this.#agents) {
      const away = (agent.x - x) ** 2 + (agent.y - y) ** 2;
      if (away < least) [found, least] = [agent, away];
    }
    return found;
  }

  point(agent) {
    if (agent === this.pointed) return;
    this.pointed = agent;
    this.#dirty = true;
    this.#wake();
  }

  #move(passed) {
    const share = 1 - Math.exp(-passed / EASE_MS);
    let moving = false;
    for (const agent of this.#agents) {
      const x = agent.toX - agent.x;
      const y = agent.toY - agent.y;
      if (Math.abs(x) + Math.abs(y) < STILL) {
        agent.x = agent.toX;
        agent.y = agent.toY;
      } else {
        agent.x += x * share;
        agent.y += y * share;
        moving = true;
      }
    }
    this.#moving = moving;
  }

  #resized() {
    this.#layout = null;
    this.#fresh = true;
    this.update();
    this.#wake();
  }

  #measure() {
    if (this.#layout !== null) return true;
    const { clientWidth: width, clientHeight: height } = this.#canvas.parentElement;
    if (!width || !height) return false;
    this.#radius = radiusFor(this.#agents.length);
    this.#layout = new Layout(width, height);
    this.#painter.prepare(width, height, this.#radius);
    return true;
  }
}
