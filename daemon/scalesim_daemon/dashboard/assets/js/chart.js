// One chart over time. What it shows last is also told as text, for those who don't see it.
import uPlot from "../vendor/uplot/uPlot.esm.js";
import { timeOf } from "./format.js";
import { latest } from "./series.js";
import { colour, onTheme } from "./theme.js";
import { html, useEffect, useLayoutEffect, useRef } from "./ui.js";

const HEIGHT = 150;

// `lines` has a `label` and the theme's `colour` for each curve of `data`, whose values `format` says for people.
export function Chart({ id, title, note, data, lines, format, top, empty }) {
  const box = useRef(null);
  const plot = useRef(null);
  const known = data.slice(1).some((values) => values.filter((value) => value !== null).length > 1);

  useLayoutEffect(() => {
    if (!known) return undefined;
    const make = () => {
      plot.current?.destroy();
      plot.current = new uPlot(options(box.current.clientWidth, lines, format, top), data, box.current);
    };
    make();
    const sizes = new ResizeObserver(() => plot.current.setSize({ width: box.current.clientWidth, height: HEIGHT }));
    sizes.observe(box.current);
    const stop = onTheme(make);
    return () => {
      sizes.disconnect();
      stop();
      plot.current.destroy();
      plot.current = null;
    };
  }, [known]);

  useEffect(() => {
    plot.current?.setData(data);
  }, [data]);

  const told = lines.map(({ label }, index) => `${label} ${format(latest(data[index + 1]))}`).join(", ");
  return html`<section class="card wide-4" aria-labelledby=${id}>
    <header><h2 id=${id}>${title}</h2><p>${note}</p></header>
    ${known
      ? html`<div class="chart" ref=${box} role="img" aria-label=${`${title}: ${told}`}></div>`
      : html`<p class="empty">${empty}</p>`}
  </section>`;
}

function options(width, lines, format, top) {
  const axis = { stroke: colour("muted"), font: `11px ${colour("font")}`, ticks: { show: false } };
  return {
    width,
    height: HEIGHT,
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
    scales: { y: { range: (_, low, high) => [Math.min(0, low ?? 0), top ?? Math.max((high ?? 1) * 1.1, 1e-3)] } },
    axes: [
      { ...axis, grid: { show: false }, values: (_, ticks) => ticks.map((at) => timeOf(at).slice(0, 5)) },
      { ...axis, size: 52, grid: { stroke: colour("line"), width: 1 }, values: (_, ticks) => ticks.map(format) },
    ],
    series: [
      { label: "at", value: (_, at) => (at === null ? "–" : timeOf(at)) },
      ...lines.map((line, index) => ({
        label: line.label,
        stroke: colour(line.colour),
        width: 2,
        dash: index ? [5, 4] : undefined,
        fill: index ? undefined : `${colour(line.colour)}1f`,
        points: { size: 5 },
        value: (_, value) => format(value),
      })),
    ],
  };
}
