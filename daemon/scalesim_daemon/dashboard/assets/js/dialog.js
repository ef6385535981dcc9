// A modal dialog that is open while it is rendered: the browser keeps the focus in it, and gives it back.
import { html, useLayoutEffect, useRef } from "./ui.js";

export function Dialog({ kind, label, onClose, children }) {
  const box = useRef(null);
  useLayoutEffect(() => {
    const dialog = box.current;
    dialog.showModal();
    return () => dialog.close();
  }, []);
  // Browsers close a dialog by themselves, on Escape. One that has gone from the page says so too late to mean it.
  const onClosed = () => box.current && onClose();
  // A click beside it closes it, too.
  const onClick = (event) => event.target === box.current && onClose();
  return html`<dialog ref=${box} class=${kind} aria-label=${label} onClose=${onClosed} onClick=${onClick}>
    ${children}
  </dialog>`;
}
