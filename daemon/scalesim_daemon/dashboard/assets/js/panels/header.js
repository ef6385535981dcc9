// Who this is, which mode it is in, what the clocks show, and whether the page is connected.
import { count, duration, timeOf, unitName } from "../format.js";
import { ThemeButton } from "../theme.js";
import { html } from "../ui.js";

const VERBS = { active: "resume", observe: "observe", paused: "pause" };
const NAMES = { active: "Active", observe: "Observe", paused: "Paused" };
const MEANINGS = {
  active: "plans and moves memory",
  observe: "plans and shows it, and moves nothing",
  paused: "listens, and does nothing",
};
const LINKS = { live: "live", connecting: "connecting", away: "not connected", refused: "not signed in" };
const MOST_CLOCKS = 4;

export function Header({ model, actions }) {
  const { link, mode, role, tokens, version } = model;
  return html`<header class="top">
    <div class="brand">
      <img src="dashboard/icon.svg" alt="" />
      <div><h1>ScaleSim sidecar</h1><small>${version && `version ${version}`}</small></div>
    </div>
    <${Clocks} clocks=${model.agents.clocks} />
    <div class="tools">
      <span class="state ${link.state}"><i></i>${LINKS[link.state]}</span>
      <div class="choice" role="group" aria-label="Mode">
        ${Object.entries(VERBS).map(
          ([name, verb]) => html`<button
            aria-pressed=${mode === name ? "true" : "false"}
            disabled=${!model.mayAct}
            title=${model.whyNot || `${NAMES[name]}: ${MEANINGS[name]}`}
            onClick=${() => mode !== name && actions.setMode(verb)}
          >${NAMES[name]}</button>`,
        )}
      </div>
      ${(tokens || role === null) &&
      html`<button onClick=${actions.signIn}>${role ? `Signed in: ${role}` : "Sign in"}</button>`}
      <${ThemeButton} />
    </div>
  </header>`;
}

function reading(kind, now) {
  if (kind === "step") return `step ${count(now)}`;
  return kind === "wall_seconds" ? timeOf(now) : `${count(now)} ${unitName(kind)}`;
}

function Clocks({ clocks }) {
  const known = Object.entries(clocks);
  return html`<div class="clocks" aria-label="Clocks" role="group">
    ${known.length === 0 && html`<span>no simulation speaks yet</span>`}
    ${known.slice(0, MOST_CLOCKS).map(
      ([source, { kind, now, pace }]) => html`<span key=${source}>
        ${source} <b>${reading(kind, now)}</b>
        ${kind !== "wall_seconds" && pace != null && ` at ${duration(pace)} each`}
      </span>`,
    )}
    ${known.length > MOST_CLOCKS && html`<span>and ${known.length - MOST_CLOCKS} more</span>`}
  </div>`;
}
