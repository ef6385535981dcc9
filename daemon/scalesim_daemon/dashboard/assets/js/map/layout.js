// Where each agent is drawn: its distance across, the nearest tier of its memory down. Pure; CSS pixels.
import { scatter } from "./scale.js";

const BOTTOM = 30;
const TOP = 22;
const SIDE = 12;
const CALLING_SHARE = 0.075;
const FAR_SHARE = 0.13;
// Distances in whole steps would make columns one dot wide: each agent has its own place within its step.
const STEP_SCATTER = 0.62;

export class Layout {
  constructor(width, height) {
    this.width = width;
    this.height = height;
    const inner = width - 2 * SIDE;
    this.calling = { left: SIDE, right: SIDE + Math.max(56, inner * CALLING_SHARE) };
    this.far = { left: width - SIDE - Math.max(76, inner * FAR_SHARE), right: width - SIDE };
    this.plot = { left: this.calling.right + 18, right: this.far.left - 22 };
    this.top = TOP;
    this.bottom = height - BOTTOM;
    this.band = (this.bottom - this.top) / 4;
  }

  // The x of a distance on the axis.
  x(axis, distance) {
    return this.plot.left + axis.at(distance) * (this.plot.right - this.plot.left);
  }

  bandTop(place) {
    return this.top + place * this.band;
  }

  // Set where an agent is to be. `distance` is in the axis' units, `discrete` whether these are whole steps.
  place(agent, distance, axis, discrete, radius) {
    agent.scatter ??= scatter(agent.key);
    const [across, down] = agent.scatter;
    if (agent.in_flight > 0) agent.toX = within(this.calling, across, radius);
    else if (distance === Infinity) agent.toX = within(this.far, across, radius);
    else agent.toX = this.x(axis, distance + (discrete ? across * STEP_SCATTER : 0));
    const room = this.band - 2 * (radius + 3);
    agent.toY = this.bandTop(agent.place) + radius + 3 + down * room;
  }
}

const within = ({ left, right }, share, radius) => left + radius + share * (right - left - 2 * radius);

// Dots are the smaller the more there are.
export function radiusFor(count) {
  if (count <= 60) return 6.5;
  if (count <= 300) return 5;
  if (count <= 1500) return 3.6;
  return count <= 5000 ? 2.7 : 2.1;
}
