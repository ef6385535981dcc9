// One agent: how far it is and why, where its memory is, what was done about it, and what can be.
import { Dialog } from "../dialog.js";
import { count, distance, figure, share, timeOf } from "../format.js";
import { html, useState } from "../ui.js";
import { DecisionsTable } from "./decisions.js";

const LEASES = [
  [600, "10 minutes"],
  [3600, "1 hour"],
  [86400, "1 day"],
];
const KINDS = { prefix_kv: "Prefix", lora: "LoRA", model: "Model" };

export function AgentSheet({ model, actions }) {
  const key = model.selected;
  if (key === null) return null;
  const close = () => actions.select(null);
  return html`<${Dialog} key=${key} kind="sheet" label=${`Agent ${key}`} onClose=${close}>
    <header><h2>${key}</h2><button onClick=${close}>Close</button></header>
    <${Content} model=${model} actions=${actions} agent=${model.detail} />
  <//>`;
}

function Content({ model, actions, agent }) {
  if (agent === null) return html`<div><p class="empty">Asking…</p></div>`;
  if (agent.gone) return html`<div><p class="empty">${agent.gone}</p></div>`;
  return html`<div>
    <${Facts} agent=${agent} />
    <${Acts} model=${model} actions=${actions} agent=${agent} />
    <section aria-labelledby="places-title">
      <h3 id="places-title">Where its memory is</h3>
      ${agent.places.length === 0
        ? html`<p class="note">No engine knows of any: bind its memory, or let it call twice.</p>`
        : html`<div class="scroll" tabindex="0" role="region" aria-label="Places"><table>
            <thead><tr><th>memory</th><th>engine</th><th>state</th><th>tiers</th></tr></thead>
            <tbody>
              ${agent.places.map((place) => html`<${Place} key=${`${place.engine} ${place.item}`} place=${place} />`)}
            </tbody>
          </table></div>`}
    </section>
    <section aria-labelledby="done-title">
      <h3 id="done-title">What was done with it, or at its expense</h3>
      ${agent.decisions.length === 0
        ? html`<p class="note">Nothing yet.</p>`
        : html`<div class="scroll" tabindex="0" role="region" aria-label="Decisions about this agent">
            <${DecisionsTable} decisions=${agent.decisions} />
          </div>`}
    </section>
  </div>`;
}

function Facts({ agent }) {
  return html`<dl class="facts">
    <dt>Next call</dt><dd>${agent.in_flight ? "calling now" : distance(agent.distance, agent.unit, agent.seconds)}</dd>
    <dt>Why</dt><dd>${agent.why}</dd>
    <dt>Confidence</dt><dd>${share(agent.confidence)}</dd>
    <dt>Calls so far</dt><dd>${count(agent.invocations)}</dd>
    <dt>Pinned</dt><dd>${agent.pinned_until === null ? "no" : `until ${timeOf(agent.pinned_until)}`}</dd>
  </dl>`;
}

function Acts({ model, actions, agent }) {
  const [seconds, setSeconds] = useState(LEASES[1][0]);
  const off = !model.mayAct;
  const whyNot = off ? "why-not" : undefined;
  const items = new Map(agent.places.map(({ kind, item }) => [`${kind} ${item}`, { kind, item }]));
  return html`<section aria-labelledby="acts-title">
    <h3 id="acts-title">Act</h3>
    ${off && html`<p class="note warn" id="why-not">${model.whyNot}</p>`}
    <div class="acts" role="group" aria-label="Pin" aria-describedby=${whyNot}>
      <select
        aria-label="How long to pin it"
        disabled=${off}
        value=${seconds}
        onChange=${(event) => setSeconds(Number(event.target.value))}
      >
        ${LEASES.map(([value, name]) => html`<option key=${value} value=${value}>${name}</option>`)}
      </select>
      <button class="first" disabled=${off} onClick=${() => actions.pin(agent.key, seconds)}>
        ${agent.pinned_until === null ? "Pin" : "Pin anew"}
      </button>
      ${agent.pinned_until !== null &&
      html`<button disabled=${off} onClick=${() => actions.unpin(agent.key)}>Unpin</button>`}
    </div>
    ${[...items.values()].map(
      ({ kind, item }) => html`<div
        class="acts"
        key=${`${kind} ${item}`}
        role="group"
        aria-label=${`${KINDS[kind]} ${item}`}
        aria-describedby=${whyNot}
      >
        <span class="note">${KINDS[kind]}${kind === "prefix_kv" ? "" : ` ${item}`}</span>
        <button disabled=${off} onClick=${() => actions.prefetch(item, kind)}>Prefetch</button>
        <button disabled=${off} onClick=${() => actions.evict(item, kind)}>Evict</button>
      </div>`,
    )}
  </section>`;
}

function Place({ place }) {
  const part = place.blocks ? `, ${figure(place.resident_blocks)} of ${figure(place.blocks)} blocks` : "";
  return html`<tr>
    <td class="name">${KINDS[place.kind]}${place.kind === "prefix_kv" ? "" : ` ${place.item}`}</td>
    <td>${place.engine}</td>
    <td>${place.residency}${part}</td>
    <td>${place.tiers.join(", ") || "none"}</td>
  </tr>`;
}
