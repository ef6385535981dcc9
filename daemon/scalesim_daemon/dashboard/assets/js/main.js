// Puts the page together: one model, one link, and one frame that shows whatever has changed.
import { makeActions } from "./actions.js";
import { App } from "./app.js";
import { Link } from "./link.js";
import { Model } from "./model.js";
import { keepReporting, recall, refresh } from "./reports.js";
import { html, render } from "./ui.js";

const root = document.getElementById("root");
let map = null;
let asked = false;
let changed = true;
// When the oldest message came that no frame shows yet.
let heardAt = null;

const wake = () => {
  if (asked) return;
  asked = true;
  requestAnimationFrame(frame);
};

const model = new Model(() => {
  changed = true;
  wake();
});

const link = new Link(model, (message, at) => {
  heardAt ??= at;
  model.hear(message);
  if (message.name !== "snapshot") return;
  recall(model);
  refresh(model);
});

const actions = makeActions(model, link);
const ready = (made) => {
  map = made;
  model.set({});
};

function frame(now) {
  asked = false;
  if (changed) {
    changed = false;
    render(html`<${App} model=${model} actions=${actions} wake=${wake} ready=${ready} />`, root);
    map?.update();
  }
  map?.frame(now);
  if (heardAt !== null && map !== null) {
    const start = heardAt;
    heardAt = null;
    // After the browser has painted this frame.
    setTimeout(() => measure("scalesim.update", start));
  }
}

// For whoever looks: the browser's developer tools, and tests.
function measure(name, start) {
  performance.measure(name, { start, end: performance.now() });
  performance.clearMeasures(name);
}

root.replaceChildren();
wake();
keepReporting(model);
await link.run();
