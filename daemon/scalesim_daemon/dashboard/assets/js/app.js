// The page as a whole.
import { AgentSheet } from "./panels/agent.js";
import { Banner } from "./panels/banner.js";
import { Charts } from "./panels/charts.js";
import { Decisions } from "./panels/decisions.js";
import { Engines } from "./panels/engines.js";
import { Estimators } from "./panels/estimators.js";
import { Header } from "./panels/header.js";
import { Near } from "./panels/near.js";
import { Plan } from "./panels/plan.js";
import { SignIn } from "./panels/signin.js";
import { Tiles } from "./panels/tiles.js";
import { MapPanel } from "./map/panel.js";
import { classes, html } from "./ui.js";

export function App({ model, actions, wake, ready }) {
  return html`
    <a class="skip" href="#content">Skip to the content</a>
    <${Header} model=${model} actions=${actions} />
    <${Banner} model=${model} actions=${actions} />
    <main id="content" tabindex="-1">
      <${Tiles} model=${model} />
      <${MapPanel} model=${model} actions=${actions} wake=${wake} ready=${ready} />
      <${Near} model=${model} actions=${actions} />
      <${Charts} samples=${model.samples} every=${model.every} />
      <${Engines} engines=${model.engines} />
      <${Plan} plan=${model.plan} actions=${actions} />
      <${Decisions} decisions=${model.decisions} actions=${actions} />
      <${Estimators} estimators=${model.estimators} sources=${model.sources} samples=${model.samples} />
    </main>
    <${AgentSheet} model=${model} actions=${actions} />
    <${SignIn} model=${model} actions=${actions} />
    <div class="toasts" aria-hidden="true">
      ${model.toasts.map(({ text, bad }) => html`<div class=${classes("toast", bad && "bad")}>${text}</div>`)}
    </div>
  `;
}
