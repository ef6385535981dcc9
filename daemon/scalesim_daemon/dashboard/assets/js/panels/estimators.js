// How good the estimates were, estimator by estimator, and the streams that they rest on.
import { Chart } from "../chart.js";
import { count, figure, share, unitName } from "../format.js";
import { order } from "../series.js";
import { html, useMemo } from "../ui.js";

const ORDER = [
  { label: "estimates", colour: "accent" },
  { label: "recency", colour: "nowhere" },
];

const NAMES = ["stream", "estimator", "has a say"];
const NUMBERS = ["in order", "without it", "by recency", "pairs", "foreseen", "off by"];

export function Estimators({ estimators, sources, samples }) {
  const chart = useMemo(
    () => html`<${Chart}
      id="order-title"
      title="Calls foreseen in order"
      note="share of pairs of calls; recency is what an engine goes by alone"
      data=${order(samples)}
      lines=${ORDER}
      format=${(value) => share(value)}
      top=${1}
      empty="No pair of calls was scored in the last hour."
    />`,
    [samples],
  );
  const table = useMemo(
    () => html`<section class="card wide-8" aria-labelledby="estimators-title">
      <header>
        <h2 id="estimators-title">Estimator quality</h2><p>over the last 256 invocations that concern each</p>
      </header>
      <${Streams} sources=${sources} />
      ${!estimators?.estimators.length
        ? html`<p class="empty">No stream of events is open: nothing is estimated.</p>`
        : html`<div class="scroll tall" tabindex="0" role="region" aria-label="Estimators of all streams"><table>
            <thead><tr>
              ${NAMES.map((name) => html`<th>${name}</th>`)}
              ${NUMBERS.map((name) => html`<th class="number">${name}</th>`)}
            </tr></thead>
            <tbody>
              ${estimators.estimators.map((one) => html`<${Row} key=${`${one.source} ${one.estimator}`} one=${one} />`)}
            </tbody>
          </table></div>`}
    </section>`,
    [estimators, sources],
  );
  return html`${chart}${table}`;
}

function Row({ one: { source, estimator, admitted, accuracy, clock } }) {
  return html`<tr>
    <td class="name">${source}</td>
    <td>${estimator}</td>
    <td><span class="tag ${admitted ? "good" : ""}">${admitted ? "yes" : "not now"}</span></td>
    <td class="number">${share(accuracy.order_accuracy)}</td>
    <td class="number">${share(accuracy.accuracy_without)}</td>
    <td class="number">${share(accuracy.recency_accuracy)}</td>
    <td class="number">${count(accuracy.pairs)}</td>
    <td class="number">${share(accuracy.coverage)}</td>
    <td class="number">${figure(accuracy.lead_error)} ${accuracy.lead_error != null && unitName(clock)}</td>
  </tr>`;
}

function Streams({ sources }) {
  const stale = sources?.sources.filter((source) => source.stale) ?? [];
  if (stale.length === 0) return null;
  const names = stale.map((source) => source.source).join(", ");
  return html`<p class="note warn">Something of ${names} is missing: its view is stale until its next snapshot.</p>`;
}
