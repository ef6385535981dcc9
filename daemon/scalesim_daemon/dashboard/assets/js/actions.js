// What people do by click. Each says what came of it, on the page and to a screen reader.
import { Away, Refused, ask } from "./api.js";
import { duration } from "./format.js";
import { agentPath, explain, refresh } from "./reports.js";
import { announce } from "./ui.js";

const POLL = 500;
const SHOWN = 6000;

export function makeActions(model, link) {
  const say = (text, bad = false) => {
    const toast = { text, bad };
    announce(text);
    model.set({ toasts: [...model.toasts, toast] });
    setTimeout(() => model.set({ toasts: model.toasts.filter((one) => one !== toast) }), SHOWN);
  };

  // Run `act`, say what it returns, and show the new state.
  const attempt = async (act) => {
    try {
      const text = await act();
      if (text) say(text);
    } catch (error) {
      if (!(error instanceof Refused || error instanceof Away)) throw error;
      say(error instanceof Away ? `The daemon doesn't answer: ${error.message}` : `Refused: ${error.message}`, true);
    }
    await refresh(model);
  };

  const kept = (answer, text) => (answer.not_kept ? `${text} ${answer.not_kept}` : text);

  const move = (what, key, kind) =>
    attempt(async () => {
      const { id } = await ask(`v1/${what}`, { method: "POST", body: { key, kind } });
      say(`Asked to ${what} ${key}.`);
      for (;;) {
        const { ended_at, state, detail } = await ask(`v1/operations/${id}`);
        if (ended_at !== null) return `${what} of ${key}: ${state}${detail ? `, ${detail}` : ""}`;
        await new Promise((resume) => setTimeout(resume, POLL));
      }
    });

  return {
    pin: (key, seconds) =>
      attempt(async () => {
        const answer = await ask(agentPath("v1/pins", key), { method: "PUT", body: { seconds } });
        return kept(answer, `${key} is pinned for ${duration(seconds)}.`);
      }),
    unpin: (key) =>
      attempt(async () => {
        const answer = await ask(agentPath("v1/pins", key), { method: "DELETE" });
        return kept(answer, `${key} isn't pinned any more.`);
      }),
    prefetch: (key, kind = "prefix_kv") => move("prefetch", key, kind),
    evict: (key, kind = "prefix_kv") => move("evict", key, kind),
    setMode: (verb) =>
      attempt(async () => {
        const answer = await ask(`v1/${verb}`, { method: "POST" });
        return kept(answer, `The mode is ${answer.mode}.`);
      }),
    select: async (key) => {
      model.set({ selected: key, detail: null });
      if (key === null) return;
      try {
        const detail = await explain(key);
        if (detail.key === model.selected) model.set({ detail });
      } catch (error) {
        if (!(error instanceof Refused || error instanceof Away)) throw error;
        model.set({ detail: { key, gone: error.message } });
      }
    },
    reconnect: () => link.again(),
    signIn: () => model.set({ asking: true }),
  };
}
