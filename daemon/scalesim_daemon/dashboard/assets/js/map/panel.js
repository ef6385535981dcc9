// The map on the page: the pointer, the keyboard, and what is told of the agent that they are at.
import { count, distance, share } from "../format.js";
import { announce, html, useEffect, useRef, useState } from "../ui.js";
import { AgentMap } from "./map.js";

const PLACES = ["on a device", "in host memory", "in storage", "not in memory"];
const MOST_WALKED = 500;

// One agent in one line.
export function sentence(agents, agent) {
  const away = distance(agents.distance(agent), agents.kind(agent), agents.seconds(agent));
  const parts = [agent.in_flight ? "calling" : away, PLACES[agent.place]];
  if (agent.resident !== null) parts.push(`${share(agent.resident)} of its prefix on a device`);
  if (agent.pinned) parts.push("pinned");
  return parts.join(", ");
}

export function MapPanel({ model, actions, wake, ready }) {
  const box = useRef(null);
  const canvas = useRef(null);
  const map = useRef(null);
  const [tip, setTip] = useState(null);

  useEffect(() => {
    map.current = new AgentMap(canvas.current, model, wake);
    ready(map.current);
  }, []);

  const show = (agent) => {
    map.current?.point(agent);
    setTip(agent);
  };
  const move = (event) => {
    const { left, top } = canvas.current.getBoundingClientRect();
    show(map.current?.at(event.clientX - left, event.clientY - top) ?? null);
  };
  const walk = (event) => {
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    const order = model.agents.nearest(MOST_WALKED, (agent) => model.meant(agent));
    if (order.length === 0) return;
    const here = order.indexOf(map.current.pointed);
    let next = order[here];
    if (event.key === "Home") next = order[0];
    else if (event.key === "End") next = order.at(-1);
    else if (event.key in steps) next = order[here < 0 ? 0 : (here + steps[event.key] + order.length) % order.length];
    else if (event.key === "Enter" && next) actions.select(next.key);
    else if (event.key === "Escape") next = null;
    else return;
    event.preventDefault();
    show(next ?? null);
    if (next && event.key !== "Enter") announce(`${next.key}: ${sentence(model.agents, next)}`);
  };
  const shown = tip && model.agents.byKey.get(tip.key);
  const { all, foreseen, calling, pinned } = model.agents.counts;
  return html`<section class="card wide-8" aria-labelledby="map-title">
    <header>
      <h2 id="map-title">What is where</h2>
      <p>
        ${count(all)} agents, ${count(foreseen)} with an invocation foreseen, ${count(calling)} calling,
        ${" "}${count(pinned)} pinned
      </p>
    </header>
    <div
      class="map"
      ref=${box}
      tabindex="0"
      role="application"
      aria-roledescription="map"
      aria-label=${`Map of ${all} agents by distance and tier`}
      aria-describedby="map-help"
      onKeyDown=${walk}
      onBlur=${() => show(null)}
    >
      <canvas ref=${canvas} aria-hidden="true" onPointerMove=${move} onPointerLeave=${() => show(null)}
        onClick=${() => map.current?.pointed && actions.select(map.current.pointed.key)}></canvas>
      <div class="tip" aria-hidden="true" hidden=${!shown} style=${shown ? besides(shown, box.current) : ""}>
        ${shown && html`<b>${shown.key}</b>${sentence(model.agents, shown)}`}
      </div>
    </div>
    <div class="key" id="map-help">
      <span><i class="dot device"></i>device: the fuller, the more of the prefix is there</span>
      <span><i class="dot host"></i>host</span>
      <span><i class="dot storage"></i>storage</span>
      <span><i class="dot"></i>not in memory</span>
      <span><i class="ring calling"></i>calling</span>
      <span><i class="ring"></i>pinned</span>
      <span>Arrow keys go through the agents, the nearest first; Enter opens one. The list has the same.</span>
    </div>
  </section>`;
}

function besides({ x, y }, box) {
  const right = x < box.clientWidth / 2;
  const across = right ? `left: ${x + 16}px` : `right: ${box.clientWidth - x + 16}px`;
  return `${across}; top: ${Math.max(4, Math.min(y - 20, box.clientHeight - 84))}px`;
}
