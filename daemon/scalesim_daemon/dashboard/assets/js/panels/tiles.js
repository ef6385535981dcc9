// The few figures that say at a glance how it goes.
import { count, duration, large, share } from "../format.js";
import { firstToken, hitShare, latest } from "../series.js";
import { html, useMemo } from "../ui.js";

export function Tiles({ model }) {
  const { agents, engines, report, samples } = model;
  const recent = useMemo(
    () => ({ hits: latest(hitShare(samples)[1].slice(-12)), ttft: latest(firstToken(samples)[1].slice(-12)) }),
    [samples],
  );
  const last = samples.at(-1);
  const counts = agents.counts;
  const up = engines?.engines.filter((engine) => engine.reachable).length;
  const settled = report ? report.prefetches_used + report.prefetches_wasted : 0;
  return html`<dl class="tiles wide-12">
    <${Tile}
      name="Agents"
      figure=${count(counts.all)}
      note=${`${count(counts.tiers[0])} on a device, ${count(counts.calling)} calling`}
    />
    <${Tile} name="Found on the device" figure=${share(recent.hits)} note=${foundSinceStart(last)} />
    <${Tile}
      name="Time to first token"
      figure=${duration(recent.ttft)}
      note=${last?.first_tokens == null ? "no engine tells" : `mean; ${count(last.first_tokens)} requests, ours too`}
    />
    <${Tile}
      name="Prefetches used"
      figure=${settled ? share(report.prefetches_used / settled) : share(null)}
      note=${report && became(report)}
    />
    <${Tile}
      name="Calls foreseen in order"
      figure=${share(report?.order_accuracy)}
      note=${report?.order_pairs
        ? `of ${count(report.order_pairs)} pairs; by recency ${share(report.recency_accuracy)}`
        : "no pair of calls scored yet"}
    />
    <${Tile}
      name="Engines"
      figure=${engines ? html`${up}<small> of ${engines.engines.length} answer</small>` : share(null)}
      note=${engines && `${count(sum(engines, "running"))} requests run, ${count(sum(engines, "waiting"))} wait`}
    />
  </dl>`;
}

function foundSinceStart(last) {
  if (!last?.prefix_tokens) return "no call with a known prefix yet";
  return `${share(last.found_tokens / last.prefix_tokens)} of ${large(last.prefix_tokens)} tokens since the start`;
}

const became = ({ prefetches_used: used, prefetches_wasted: wasted, prefetches_pending: open }) =>
  `${count(used)} used, ${count(wasted)} wasted, ${count(open)} open`;

const sum = ({ engines }, name) => engines.reduce((total, { pressure }) => total + (pressure?.[name] ?? 0), 0);

function Tile({ name, figure, note }) {
  return html`<div class="tile"><dt>${name}</dt><dd class="figure">${figure}</dd><dd>${note}</dd></div>`;
}
