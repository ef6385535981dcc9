// Light or dark: the choice is this browser's, and holds until it is chosen anew.
import { classes, html, useState } from "./ui.js";

const RAYS =
  "M10 1.8v2M10 16.2v2M1.8 10h2M16.2 10h2M4.2 4.2l1.4 1.4M14.4 14.4l1.4 1.4M4.2 15.8l1.4-1.4M14.4 5.6l1.4-1.4";

export const themeNow = () => document.documentElement.dataset.theme;

// Run `changed` whenever the theme is another, until what is returned is called.
export function onTheme(changed) {
  const watch = new MutationObserver(changed);
  watch.observe(document.documentElement, { attributeFilter: ["data-theme"] });
  return () => watch.disconnect();
}

// A custom property of the theme that holds.
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

export function ThemeButton() {
  const [theme, setTheme] = useState(themeNow());
  const other = theme === "dark" ? "light" : "dark";
  const change = () => {
    document.documentElement.dataset.theme = other;
    try {
      localStorage.setItem("scalesim.theme", other);
    } catch {
      // It holds for this page alone.
    }
    setTheme(other);
  };
  return html`<button class=${classes("bare")} onClick=${change} aria-label=${`Use the ${other} theme`}>
    <svg viewBox="0 0 20 20" aria-hidden="true" fill="none" stroke="currentColor" stroke-width="1.8">
      ${theme === "dark"
        ? html`<circle cx="10" cy="10" r="3.6" /><path
            stroke-linecap="round"
            d=${RAYS}
          />`
        : html`<path stroke-linejoin="round" d="M16.5 12.2A7 7 0 0 1 7.8 3.5a7 7 0 1 0 8.7 8.7Z" />`}
    </svg>
  </button>`;
}
