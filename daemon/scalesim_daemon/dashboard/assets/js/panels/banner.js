// What stands in the way: the daemon is away, the token was refused, or it only reads.
import { html, useEffect, useState } from "../ui.js";

export function Banner({ model, actions }) {
  const { link, role, tokens } = model;
  if (link.state === "away") {
    return html`<div class="banner away" role="alert">
      <b>The daemon doesn't answer.</b>
      <span>
        ${link.why}. What you see is as it was last heard; the engines go on without it. <${Retry} at=${link.retryAt} />
      </span>
      <button onClick=${actions.reconnect}>Try now</button>
    </div>`;
  }
  if (link.state === "refused") {
    return html`<div class="banner" role="alert">
      <b>The daemon asks for a token.</b>
      <span>It said: ${link.why}.</span>
      <button class="first" onClick=${actions.signIn}>Sign in</button>
    </div>`;
  }
  if (link.state === "live" && tokens && role === "viewer") {
    return html`<div class="banner">
      <span>You are signed in as a viewer: everything is shown, and what would change something is off.</span>
      <button onClick=${actions.signIn}>Sign in as admin</button>
    </div>`;
  }
  return null;
}

function Retry({ at }) {
  const left = () => Math.max(0, Math.ceil((at - Date.now()) / 1000));
  const [seconds, setSeconds] = useState(left());
  useEffect(() => {
    const timer = setInterval(() => setSeconds(left()), 500);
    return () => clearInterval(timer);
  }, [at]);
  // Not said again each second to those who listen.
  return html`<span aria-hidden="true">${seconds ? `Next try in ${seconds} s.` : "Trying…"}</span>`;
}
