// What panels are written with. Whatever is put into `html` is text, never markup.
export { html, render, Component } from "../vendor/htm/standalone.module.js";
export { useEffect, useLayoutEffect, useMemo, useRef, useState } from "../vendor/htm/standalone.module.js";

const announcer = document.getElementById("announcer");

// Tell a screen reader, without moving its focus.
export function announce(text) {
  announcer.textContent = text;
}

// Join the names of classes that hold.
export const classes = (...names) => names.filter(Boolean).join(" ");
