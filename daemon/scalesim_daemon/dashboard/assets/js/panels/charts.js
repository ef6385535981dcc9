// How it went over the last hour.
import { Chart } from "../chart.js";
import { duration, figure, share } from "../format.js";
import { WINDOW, firstToken, hitShare, prefetches } from "../series.js";
import { html, useMemo } from "../ui.js";

const HITS = [{ label: "found", colour: "device" }];
const FIRST = [{ label: "mean", colour: "accent" }];
const PREFETCHES = [
  { label: "used", colour: "used" },
  { label: "wasted", colour: "wasted" },
];

export function Charts({ samples, every }) {
  const over = `over ${Math.round(WINDOW * every)} s`;
  return useMemo(
    () => html`<${Chart}
        id="hits-title"
        title="Found on the device"
        note=${`share of the prefix tokens of calls, ${over}`}
        data=${hitShare(samples)}
        lines=${HITS}
        format=${(value) => share(value)}
        top=${1}
        empty="No call with a known prefix in the last hour."
      />
      <${Chart}
        id="ttft-title"
        title="Time to first token"
        note=${`mean of all requests by the engines' own count, our prefetches among them`}
        data=${firstToken(samples)}
        lines=${FIRST}
        format=${duration}
        empty=${samples.at(-1)?.first_tokens == null
          ? "Not known: no engine tells. vLLM does; SGLang does with --enable-metrics; others are not asked."
          : "No call had a first token in the last hour."}
      />
      <${Chart}
        id="prefetches-title"
        title="Prefetches"
        note=${`a minute, used by a call or gone before it, ${over}`}
        data=${prefetches(samples)}
        lines=${PREFETCHES}
        format=${figure}
        empty="No prefetch was called for in the last hour."
      />`,
    [samples],
  );
}
