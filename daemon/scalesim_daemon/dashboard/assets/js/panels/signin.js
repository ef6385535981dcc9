// Where a token is typed. It is kept for this tab alone, and forgotten with it.
import { token } from "../api.js";
import { Dialog } from "../dialog.js";
import { html, useRef } from "../ui.js";

export function SignIn({ model, actions }) {
  const field = useRef(null);
  if (!model.asking) return null;
  const close = () => model.set({ asking: false });
  const use = (value) => {
    token.value = value;
    model.set({ asking: false, role: null });
    actions.reconnect();
  };
  const submit = (event) => {
    event.preventDefault();
    use(field.current.value.trim());
  };
  return html`<${Dialog} kind="ask" label="Sign in" onClose=${close}>
    <form onSubmit=${submit}>
      <h2>Sign in with a token</h2>
      <p class="note">
        A viewer's token shows everything; an admin's also pins, prefetches, evicts and sets the mode. It stays in this
        tab, and is gone when that is closed.
      </p>
      <label>Token<input ref=${field} type="password" autocomplete="off" spellcheck=${false} autofocus /></label>
      <div class="row">
        ${token.value && html`<button type="button" onClick=${() => use("")}>Sign out</button>`}
        <button type="button" onClick=${close}>Cancel</button>
        <button class="first" type="submit">Sign in</button>
      </div>
    </form>
  <//>`;
}
