// Draws the map on a canvas. Dots are copied from small pictures, made once per theme and size: that is quick for many.
import { large, ownName } from "../format.js";
import { colour } from "../theme.js";

const BANDS = ["On a device", "In host memory", "In storage", "Not in memory"];
const TIER_COLOURS = ["device", "host", "storage", "nowhere"];
const FILLS = [0.18, 0.45, 0.7, 1];
const DIMMED = 0.12;
const MOST_NAMES = 40;
const RINGS = ["text", "calling"];

export class Painter {
  #canvas;
  #context;
  #ratio = 1;
  #radius = 0;
  #sprites = [];
  #rings = [];
  #colours = {};
  #font = "sans-serif";

  constructor(canvas) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d", { alpha: false });
  }

  // Fit the canvas to its size in CSS pixels, and read the theme's colours.
  prepare(width, height, radius) {
    this.#ratio = Math.min(devicePixelRatio || 1, 2);
    this.#canvas.width = Math.round(width * this.#ratio);
    this.#canvas.height = Math.round(height * this.#ratio);
    for (const name of [...TIER_COLOURS, ...RINGS, "card", "sunken", "line", "line-strong", "muted", "accent"]) {
      this.#colours[name] = colour(name);
    }
    this.#font = getComputedStyle(this.#canvas).fontFamily;
    this.#makeSprites(radius);
  }

  // Draw everything once. `emphasis` has what is searched for, selected and under the pointer.
  paint(layout, axis, scene) {
    const context = this.#context;
    context.setTransform(this.#ratio, 0, 0, this.#ratio, 0, 0);
    this.#ground(layout, axis, scene);
    context.setTransform(1, 0, 0, 1, 0, 0);
    this.#dots(scene);
    context.setTransform(this.#ratio, 0, 0, this.#ratio, 0, 0);
    this.#bands(layout, scene);
    if (scene.agents.length <= MOST_NAMES) this.#names(layout, scene);
    this.#focus(scene);
  }

  #makeSprites(radius) {
    this.#radius = radius;
    this.#sprites = TIER_COLOURS.map((name) => FILLS.map((fill) => this.#sprite(name, fill)));
    this.#rings = RINGS.map((name) => this.#ring(name));
  }

  #sprite(name, fill) {
    const size = Math.ceil((this.#radius + 1) * this.#ratio) * 2;
    const [picture, context] = blank(size);
    const radius = this.#radius * this.#ratio;
    context.fillStyle = context.strokeStyle = this.#colours[name];
    context.lineWidth = Math.max(1, 0.22 * radius);
    circle(context, size / 2, size / 2, radius - context.lineWidth / 2);
    context.globalAlpha = fill;
    context.fill();
    context.globalAlpha = 1;
    context.stroke();
    return picture;
  }

  #ring(name) {
    const radius = (this.#radius + 3) * this.#ratio;
    const size = Math.ceil(radius + 2 * this.#ratio) * 2;
    const [picture, context] = blank(size);
    context.strokeStyle = this.#colours[name];
    context.lineWidth = 1.8 * this.#ratio;
    circle(context, size / 2, size / 2, radius);
    context.stroke();
    return picture;
  }

  #ground(layout, axis, { unit, discrete }) {
    const context = this.#context;
    const colours = this.#colours;
    context.fillStyle = colours.card;
    context.fillRect(0, 0, layout.width, layout.height);
    context.font = `12px ${this.#font}`;
    context.textBaseline = "middle";
    for (let place = 0; place < 4; place++) {
      const top = layout.bandTop(place);
      if (place % 2 === 0) {
        context.fillStyle = colours.sunken;
        context.fillRect(0, top, layout.width, layout.band);
      }
    }
    context.lineWidth = 1;
    context.strokeStyle = colours.line;
    context.textAlign = "center";
    const wide = layout.plot.right - layout.plot.left;
    for (const tick of axis.ticks(46 / wide, discrete ? 1 : 0.1)) {
      const x = Math.round(layout.x(axis, tick)) + 0.5;
      line(context, x, layout.top, x, layout.bottom);
      context.fillStyle = colours.muted;
      context.fillText(tick === 0 ? "now" : large(tick), x, layout.bottom + 12);
    }
    context.setLineDash([3, 4]);
    context.strokeStyle = colours["line-strong"];
    const edges = [layout.calling.right + 8, layout.far.left - 8];
    for (const x of edges) line(context, Math.round(x) + 0.5, layout.top, Math.round(x) + 0.5, layout.bottom);
    context.setLineDash([]);
    context.fillStyle = colours.muted;
    context.fillText("calling", (layout.calling.left + layout.calling.right) / 2, 11);
    context.fillText("none foreseen", (layout.far.left + layout.far.right) / 2, 11);
    context.textAlign = "left";
    context.fillText(`distance in ${unit} →`, layout.plot.left, 11);
  }

  #bands(layout, { counts }) {
    const context = this.#context;
    context.textAlign = "left";
    context.textBaseline = "middle";
    context.font = `600 11.5px ${this.#font}`;
    for (let place = 0; place < 4; place++) {
      const text = `${BANDS[place]}  ${large(counts.tiers[place])}`;
      this.#label(text, layout.plot.left + 8, layout.bandTop(place) + 12);
    }
  }

  #label(text, x, y) {
    const context = this.#context;
    const width = context.measureText(text).width;
    context.fillStyle = this.#colours.card;
    context.globalAlpha = 0.85;
    context.fillRect(x - 4, y - 8, width + 8, 16);
    context.globalAlpha = 1;
    context.fillStyle = this.#colours.muted;
    context.fillText(text, x, y);
  }

  #dots({ agents, meant }) {
    const context = this.#context;
    const ratio = this.#ratio;
    const half = this.#sprites[0][0].width / 2;
    const ringHalf = this.#rings[0].width / 2;
    const ringed = [];
    for (const dimmed of meant ? [true, false] : [false]) {
      context.globalAlpha = dimmed ? DIMMED : 1;
      for (const agent of agents) {
        if (meant && meant(agent) === dimmed) continue;
        const fill = FILLS.length - 1 - (agent.resident === null ? 0 : Math.floor((1 - agent.resident) * 3.99));
        const x = Math.round(agent.x * ratio);
        const y = Math.round(agent.y * ratio);
        context.drawImage(this.#sprites[agent.place][agent.place === 0 ? fill : 3], x - half, y - half);
        if (!dimmed && (agent.pinned || agent.in_flight > 0)) ringed.push(agent);
      }
    }
    context.globalAlpha = 1;
    for (const agent of ringed) {
      const ring = this.#rings[agent.in_flight > 0 ? 1 : 0];
      context.drawImage(ring, Math.round(agent.x * ratio) - ringHalf, Math.round(agent.y * ratio) - ringHalf);
    }
  }

  // Names beside the dots, where they overlap neither another name nor another dot.
  #names(layout, { agents }) {
    const context = this.#context;
    const radius = this.#radius;
    const taken = agents.map(({ x, y }) => [x - radius, y - radius, x + radius, y + radius]);
    context.font = `11px ${this.#font}`;
    context.textAlign = "left";
    context.textBaseline = "middle";
    for (const agent of agents) {
      const text = clipped(ownName(agent.key), 18);
      const width = context.measureText(text).width;
      const right = agent.toX + this.#radius + 5 + width < layout.width - 4;
      const left = right ? agent.x + this.#radius + 5 : agent.x - this.#radius - 5 - width;
      const box = [left, agent.y - 6, left + width, agent.y + 6];
      if (taken.some((other) => overlap(box, other))) continue;
      taken.push(box);
      context.fillStyle = this.#colours.muted;
      context.fillText(text, left, agent.y);
    }
  }

  #focus({ selected, pointed }) {
    const context = this.#context;
    for (const [agent, width] of [[selected, 2.5], [pointed, 2]]) {
      if (!agent) continue;
      context.strokeStyle = this.#colours.accent;
      context.lineWidth = width;
      circle(context, agent.x, agent.y, this.#radius + 5);
      context.stroke();
    }
  }
}

function blank(size) {
  const picture = document.createElement("canvas");
  picture.width = picture.height = size;
  return [picture, picture.getContext("2d")];
}

function circle(context, x, y, radius) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
}

function line(context, fromX, fromY, toX, toY) {
  context.beginPath();
  context.moveTo(fromX, fromY);
  context.lineTo(toX, toY);
  context.stroke();
}

const clipped = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
const overlap = (one, other) => one[0] < other[2] && other[0] < one[2] && one[1] < other[3] && other[1] < one[3];
