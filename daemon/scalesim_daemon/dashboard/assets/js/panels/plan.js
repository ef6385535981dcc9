// What is to be done next on each engine, and why.
import { count, duration } from "../format.js";
import { html, useMemo } from "../ui.js";
import { what } from "./decisions.js";

const MOST_STEPS = 12;
const MOST_VICTIMS = 3;
const PAUSED = "Paused: nothing is planned.";
const NOTHING_TO_DO = "Nothing to do: what is near is where it is needed.";

export function Plan({ plan, actions }) {
  return useMemo(() => {
    const rows = plan ? steps(plan) : [];
    const total = plan?.engines.reduce((sum, one) => sum + one.blocks_total + one.loras_total, plan.models.length) ?? 0;
    return html`<section class="card wide-6" aria-labelledby="plan-title">
      <header>
        <h2 id="plan-title">The plan, and why</h2>
        <p>
          ${total > 0 && `${count(total)} steps`}
          ${total > 0 && plan.mode !== "active" && `; none is done while the mode is ${plan.mode}`}
        </p>
      </header>
      ${rows.length === 0
        ? html`<p class="empty">${plan?.mode === "paused" ? PAUSED : NOTHING_TO_DO}</p>`
        : html`<div class="scroll tall" tabindex="0" role="region" aria-label="Steps of the plan"><table>
            <thead><tr><th>step</th><th>of</th><th class="number">needed in</th><th>why</th></tr></thead>
            <tbody>
              ${rows.slice(0, MOST_STEPS).map((row) => html`<${Row} key=${row.id} row=${row} actions=${actions} />`)}
            </tbody>
          </table></div>`}
    </section>`;
  }, [plan]);
}

function Row({ row: { step, now, engine }, actions }) {
  return html`<tr>
    <td class="still">${step.action} ${now && html`<span class="tag good">now</span>`}</td>
    <td class="name">${what(step, actions)}<br /><span class="note">${engine}</span></td>
    <td class="number">${duration(step.seconds)}</td>
    <td class="reason">${step.reason}${step.victims.length > 0 && `; gives way: ${few(step.victims)}`}</td>
  </tr>`;
}

function few(names) {
  const told = names.slice(0, MOST_VICTIMS).join(", ");
  return names.length > MOST_VICTIMS ? `${told} and ${names.length - MOST_VICTIMS} more` : told;
}

function steps(plan) {
  const rows = plan.models.map((step) => ({ step, engine: step.key }));
  for (const { engine, in_flight, blocks, loras } of plan.engines) {
    rows.push(...in_flight.map((step) => ({ step, engine, now: true })));
    rows.push(...[...loras, ...blocks].map((step) => ({ step, engine })));
  }
  return rows.map((row, index) => ({ ...row, id: `${index} ${row.engine} ${row.step.key}` }));
}
