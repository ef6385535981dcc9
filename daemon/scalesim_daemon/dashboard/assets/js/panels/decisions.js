// What was done, the latest first, with the reason and what came of it.
import { duration, timeOf } from "../format.js";
import { decisionName } from "../model.js";
import { html, useMemo } from "../ui.js";

const MOST_ROWS = 60;

const mood = (result) => (result === "done" ? "good" : result.startsWith("failed") ? "bad" : "warn");

// What a step is about: an agent that can be opened where `actions` are given, a LoRA, or a model.
export function what(step, actions) {
  if (step.kind !== "prefix_kv") return `${step.kind} ${step.key}`;
  if (!actions) return step.key;
  return html`<button class="link" onClick=${() => actions.select(step.key)}>${step.key}</button>`;
}

export function DecisionsTable({ decisions, actions }) {
  return html`<table>
    <thead><tr><th>at</th><th>step</th><th>of</th><th>why</th><th>result</th></tr></thead>
    <tbody>
      ${decisions.map(
        ({ at, engine, step, result, seconds }) => html`<tr key=${decisionName({ at, engine, step })}>
          <td class="still">${timeOf(at)}</td>
          <td class="still">${step.action}</td>
          <td class="name">${what(step, actions)}<br /><span class="note">${engine}</span></td>
          <td class="reason">${step.reason}</td>
          <td>
            <span class="tag ${mood(result)}">${result.split(":")[0]}</span>
            ${" "}<span class="note still">${duration(seconds)}</span>
            ${result.includes(":") && html`<div class="note">${result.slice(result.indexOf(":") + 2)}</div>`}
          </td>
        </tr>`,
      )}
    </tbody>
  </table>`;
}

export function Decisions({ decisions, actions }) {
  return useMemo(
    () => html`<section class="card wide-6" aria-labelledby="decisions-title">
      <header><h2 id="decisions-title">Decisions</h2><p>what was done, the latest first</p></header>
      ${decisions.length === 0
        ? html`<p class="empty">Nothing was done yet.</p>`
        : html`<div class="scroll tall" tabindex="0" role="region" aria-label="Decisions, the latest first">
            <${DecisionsTable} decisions=${decisions.slice(0, MOST_ROWS)} actions=${actions} />
          </div>`}
    </section>`,
    [decisions],
  );
}
