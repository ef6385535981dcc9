// What is asked for now and then: reports, plans and the history, while the page is seen and the daemon is there.
import { Away, Refused, ask } from "./api.js";

const EVERY = 2000;
const ROUTES = {
  engines: "v1/engines",
  plan: "v1/plan?limit=40",
  report: "v1/report",
  estimators: "v1/estimators",
  sources: "v1/sources",
};

export async function keepReporting(model) {
  for (;;) {
    if (model.link.state === "live" && !document.hidden) await refresh(model);
    await new Promise((resume) => setTimeout(resume, EVERY));
  }
}

// Ask for all reports once. That the daemon is away shows by the link.
export async function refresh(model) {
  try {
    const last = model.samples.at(-1)?.at ?? 0;
    const names = Object.keys(ROUTES);
    const [history, detail, ...answers] = await Promise.all([
      ask(`v1/history?since=${last}`),
      model.selected === null ? null : explain(model.selected),
      ...names.map((name) => ask(ROUTES[name])),
    ]);
    // Two questions may have been under way at a time.
    if (last === (model.samples.at(-1)?.at ?? 0)) model.remember(history);
    if (detail?.key === model.selected) model.detail = detail;
    model.set(Object.fromEntries(names.map((name, index) => [name, answers[index]])));
  } catch (error) {
    if (!(error instanceof Away || error instanceof Refused)) throw error;
  }
}

// Ask for what was done lately, of which a snapshot says nothing.
export async function recall(model) {
  try {
    const { decisions } = await ask("v1/decisions?limit=100");
    model.decided(decisions);
  } catch (error) {
    if (!(error instanceof Away || error instanceof Refused)) throw error;
  }
}

// Return all that is known of one agent, or that it is gone.
export async function explain(key) {
  try {
    return await ask(agentPath("v1/agents", key));
  } catch (error) {
    if (error instanceof Refused && error.status === 404) return { key, gone: error.message };
    throw error;
  }
}

// An agent's route: its simulation is one segment, the rest of its key whatever follows.
export function agentPath(route, key) {
  const slash = key.indexOf("/");
  return `${route}/${encodeURIComponent(key.slice(0, slash))}/${encodeURIComponent(key.slice(slash + 1))}`;
}
