// Who is near: a list of all agents, the nearest first. It has what the map has, for those who read rather than look.
import { count, distance, share } from "../format.js";
import { TIERS } from "../agents.js";
import { MOST_SHOWN } from "../model.js";
import { html } from "../ui.js";

const PLACES = ["device", "host", "storage", "–"];
const NO_MATCH = "No agent has that in its key.";
const NO_AGENT = "No agent is known yet: simulations name them by their events, requests by their session_id.";

export function Near({ model, actions }) {
  const { agents, filter, shown } = model;
  const meant = (agent) => model.meant(agent);
  const listed = agents.nearest(shown, meant);
  const matching = filter === "" ? agents.size : [...agents.byKey.values()].filter(meant).length;
  return html`<section class="card wide-4" aria-labelledby="near-title">
    <header>
      <h2 id="near-title">Who is near</h2>
      <p>${count(matching)} ${filter === "" ? "agents" : "match"}, the next to call first</p>
    </header>
    <div class="search" role="search">
      <input
        type="search"
        placeholder="Find an agent"
        aria-label="Find an agent by a part of its key"
        onInput=${(event) => model.set({ filter: event.target.value.toLowerCase(), shown: MOST_SHOWN })}
      />
    </div>
    <div class="scroll tall" tabindex="0" role="region" aria-label="Agents, the nearest first">
      <table>
        <thead><tr><th>agent</th><th>distance</th><th>memory</th></tr></thead>
        <tbody>
          ${listed.map(
            (agent) => html`<tr key=${agent.key}>
              <td class="name">
                <button class="link" onClick=${() => actions.select(agent.key)}>${agent.key}</button>
              </td>
              <td class="still">
                ${agent.in_flight ? html`<b>calling</b>` : distance(agents.distance(agent), agents.kind(agent))}
              </td>
              <td class="still">
                <i class="dot ${TIERS[agent.place]}"></i>${PLACES[agent.place]}
                ${agent.resident ? ` ${share(agent.resident)}` : ""}
                ${agent.pinned && html` <span class="tag">pinned</span>`}
              </td>
            </tr>`,
          )}
        </tbody>
      </table>
      ${listed.length === 0 && html`<p class="empty">${agents.size ? NO_MATCH : NO_AGENT}</p>`}
    </div>
    ${matching > listed.length &&
    html`<button class="more" onClick=${() => model.set({ shown: shown + 100 })}>Show 100 more</button>`}
  </section>`;
}
