// Engines, what they hold of what they could hold in each tier, and what keeps them from more.
import { bytes, count, large } from "../format.js";
import { html, useMemo } from "../ui.js";

const STATES = {
  up: { name: "answers", mood: "good" },
  asleep: { name: "asleep", mood: "warn" },
  away: { name: "away", mood: "bad" },
};

export function Engines({ engines }) {
  return useMemo(
    () => html`<section class="card wide-12" aria-labelledby="engines-title">
      <header><h2 id="engines-title">Engines and their budgets by tier</h2></header>
      ${engines === null && html`<p class="empty">Not heard yet.</p>`}
      ${engines?.engines.length === 0 &&
      html`<p class="empty">No engine is configured: start with --engine vllm=URL.</p>`}
      <div class="engines">
        ${engines?.engines.map((engine) => html`<${Engine} key=${engine.name} engine=${engine} />`)}
        ${engines && html`<${Shared} budgets=${engines.budgets} />`}
      </div>
    </section>`,
    [engines],
  );
}

function Engine({ engine }) {
  const { blocks, loras, host_tier: tier, pressure } = engine;
  const state = STATES[engine.reachable ? (engine.asleep ? "asleep" : "up") : "away"];
  const tokens = (value) => large(value * (blocks.size ?? 1));
  return html`<article class="engine" aria-label=${`Engine ${engine.name}`}>
    <header>
      <h3>${engine.name}</h3>
      <span class="tag ${state.mood}">${state.name}</span>
      ${engine.lease && html`<span class="tag ${engine.lease.phase === "holds" ? "good" : "warn"}">
        ${engine.lease.phase === "holds" ? "driven from here" : `held by ${engine.lease.holder ?? "nobody"}`}
      </span>`}
      ${engine.shared && html`<span class="tag warn">shared with strangers</span>`}
      <span class="note push">${[engine.engine, engine.version].filter(Boolean).join(" ")}</span>
    </header>
    ${!engine.reachable && html`<p class="note warn">${engine.unreachable_why}</p>`}
    ${engine.lease?.why_not && html`<p class="note warn">Nothing is done here: ${engine.lease.why_not}.</p>`}
    ${engine.lease?.phase === "holds" && html`<p class="note">
      By token ${engine.lease.token}, since ${new Date(1000 * engine.lease.since).toLocaleString()}.
    </p>`}
    ${engine.reachable &&
    !engine.known &&
    html`<p class="note warn">Its blocks are not planned on: ${engine.unknown_why}</p>`}
    <${Budget}
      name="Device: prefix blocks" tier="device" held=${blocks.resident} room=${blocks.capacity}
      told=${blocks.resident == null
        ? "not known"
        : `${tokens(blocks.resident)} of ${tokens(blocks.capacity)} tokens`}
    />
    ${(loras.device_places || loras.device.length > 0) && html`<${Budget}
      name="Device: LoRA slots" tier="device" held=${loras.device.length} room=${loras.device_places}
      told=${`${count(loras.device.length)} of ${count(loras.device_places)}${loras.exact ? "" : ", by our account"}`}
    />`}
    ${(loras.host_places || loras.host.length > 0) && html`<${Budget}
      name="Host: LoRA places" tier="host" held=${loras.host.length} room=${loras.host_places}
      told=${`${count(loras.host.length)} of ${count(loras.host_places)}`}
    />`}
    ${tier && html`<${Budget}
      name="Host: KV tier of the plug-in" tier="host" held=${tier.bytes} room=${tier.bytes}
      told=${tier.bytes == null ? `${tier.segment} isn't there` : bytes(tier.bytes)}
    />`}
    <p class="note">
      ${pressure && `${count(pressure.running)} requests run, ${count(pressure.waiting)} wait. `}
      ${count(engine.lost_blocks)} blocks of agents lost, ${count(engine.unpredicted)} evictions unforeseen,
      ${" "}${count(engine.restarts)} restarts seen.
    </p>
    ${engine.missing.length > 0 && html`<ul class="missing" aria-label="What would let us do more">
      ${engine.missing.map(({ what, remedy }) => html`<li key=${what}>${what}: <code>${remedy}</code></li>`)}
    </ul>`}
  </article>`;
}

function Shared({ budgets }) {
  const staged = budgets.staging - budgets.staging_free;
  return html`<article class="engine" aria-label="Budgets of all engines">
    <header><h3>All engines</h3><span class="note push">shared budgets</span></header>
    <${Budget}
      name="Host: LoRA files staged" tier="host" held=${staged} room=${budgets.staging}
      told=${`${bytes(staged)} of ${bytes(budgets.staging)}`}
    />
    <p class="note">
      ${budgets.models == null
        ? "Memory for whole models is not limited."
        : `Whole models may take ${bytes(budgets.models)} of device memory together.`}
    </p>
  </article>`;
}

function Budget({ name, tier, held, room, told }) {
  const filled = room ? Math.min(100, (100 * (held ?? 0)) / room) : 0;
  return html`<div class="budget ${tier}">
    <span>${name}</span><span>${told}</span>
    <svg aria-hidden="true" preserveAspectRatio="none"><rect width=${`${filled}%`} height="100%" /></svg>
  </div>`;
}
