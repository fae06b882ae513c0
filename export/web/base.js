"use strict";
// What every part of the page uses. Text from a model goes through put() and nowhere else.

const HIDDEN = /(?![\n\t])[\p{C}\p{Zl}\p{Zp}]/gu; // moves a cursor, turns text round, shows nothing
const LONGEST = 20000; // characters of one text shown at once

/** Makes an element: make("p.note", {title}, "text", child, ...). Strings become text nodes;
 *  what is false or empty is left out. */
function make(what, ...rest) {
  const [tag, ...classes] = what.split(".");
  const element = document.createElement(tag);
  element.className = classes.join(" ");
  const properties = rest[0]?.constructor === Object ? rest.shift() : {};
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (typeof value === "boolean") element.toggleAttribute(name, value);
    else element.setAttribute(name, value);
  }
  element.append(...rest.filter(Boolean));
  return element;
}

/** Puts text from a model into an element; characters that would hide or reorder are named. */
function put(element, text, longest = LONGEST) {
  const part = text.length > longest ? text.slice(0, longest) : text;
  const pieces = [];
  let at = 0;
  for (const { 0: char, index } of part.matchAll(HIDDEN)) {
    const code = `U+${char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
    pieces.push(part.slice(at, index), make("span.hidden-char", { title: `character ${code}` }, code));
    at = index + char.length;
  }
  element.replaceChildren(...pieces, part.slice(at));
  if (text.length > part.length) {
    const all = () => put(element, text, Infinity);
    const rest = `${count(text.length - part.length)} more characters`;
    element.append(longest < LONGEST ? "\u2026" : make("button", { onclick: all }, rest));
  }
  return element;
}

const oneLine = (text) => text.slice(0, 1000).trim().replace(/\s*\n\s*/g, " \u23ce ");
const count = (number) => number.toLocaleString("en");
const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
const known = (value) => value !== null && value !== undefined;

/** A number to a few digits; a dash where nothing is known. */
function real(value, digits = 2) {
  if (!known(value)) return "\u2013";
  if (typeof value === "string") return value;
  const text = Math.abs(value).toFixed(digits), sign = value < 0 && Number(text) ? "\u2212" : "";
  return sign + (text.startsWith("0.") ? text.slice(1) : text);
}

const signed = (value) => (Number(value.toFixed(2)) > 0 ? "+" : "") + real(value);
const span = (low, high, show = real) => (known(low) ? `${show(low)} \u2026 ${show(high)}` : "");

function readBlock(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

/** Where a probability and its interval lie between 0 and 1. */
function scale(value, low, high) {
  const bar = make("span.scale", { "aria-hidden": "true" });
  if (known(low) && known(high)) {
    const band = bar.appendChild(make("i.band"));
    band.style.left = `${100 * low}%`;
    band.style.width = `${100 * (high - low)}%`;
  }
  if (known(value)) {
    bar.appendChild(make("i.tick")).style.left = `${100 * Math.min(1, Math.max(0, value))}%`;
  }
  return bar;
}

/** Switches between light and dark; until then the page follows the system. */
function themeButton() {
  const root = document.documentElement, system = matchMedia("(prefers-color-scheme: dark)");
  const now = () => root.dataset.theme ?? (system.matches ? "dark" : "light");
  const onclick = () => { root.dataset.theme = now() === "dark" ? "light" : "dark"; };
  return make("button.icon", { id: "theme", onclick, title: "Light or dark (d)" }, "\u25d0");
}

// The address says what is chosen: #node=12.
let ownPlace = null; // where the page itself has just gone
const place = () => new URLSearchParams(location.hash.slice(1));

function setPlace(parameters) {
  const to = `#${new URLSearchParams(parameters)}`;
  if (location.hash === to) return;
  ownPlace = to;
  location.replace(to);
}

const KEYS = [
  ["\u2191 \u2193", "previous or next step"], ["\u2192 \u2190", "open and go down, close and go up"],
  ["Enter", "open or close; in the search field, next match"], ["/", "search"],
  ["Esc", "leave the search"], ["f", "first error: on the way to the step, or the next in the tree"],
  ["b", "end of the best path"], ["e  c", "open all, close all"],
  ["space", "replay the search, or pause"], ["d", "light or dark"], ["?", "this help"],
];

function helpDialog() {
  const rows = KEYS.map(([key, says]) => make("tr", make("th", make("kbd", key)), make("td", says)));
  const close = make("button", { onclick: () => dialog.close() }, "Close");
  const dialog = make("dialog", make("h2", "Keyboard"), make("table", ...rows), close);
  return dialog;
}
