"use strict";
// What every part of the page uses. Text from a model goes through put() and nowhere else.

const HIDDEN = /(?![\n\t])[\p{C}\p{Zl}\p{Zp}]/gu; // moves a cursor, turns text round, shows nothing
const LONGEST = 20000; // characters of one text shown at once

/** Makes an element: make("p.note", {title}, "text", child, ...). Strings become text nodes. */
function make(what, properties = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  const element = document.createElement(tag);
  element.className = classes.join(" ");
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && typeof value !== "string") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Puts text from a model into an element; characters that would hide or reorder are named. */
function put(element, text, longest = LONGEST) {
  const part = text.length > longest ? text.slice(0, longest) : text;
  let at = 0;
  const pieces = [];
  for (const found of part.matchAll(HIDDEN)) {
    const code = found[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    pieces.push(part.slice(at, found.index), make("span.hidden-char", { title: `character U+${code}` }, `U+${code}`));
    at = found.index + found[0].length;
  }
  element.replaceChildren(...pieces, part.slice(at));
  if (text.length > longest) {
    const rest = text.length - longest;
    const more = () => put(element, text, Infinity);
    element.append(longest < LONGEST ? "\u2026" : make("button", { onclick: more }, `${count(rest)} more characters`));
  }
  return element;
}

/** A step as one line; `none` where it is empty. */
const oneLine = (text) => text.trim().replace(/\s*\n\s*/g, " \u23ce ");
const count = (number) => number.toLocaleString("en");
const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
const known = (value) => value !== null && value !== undefined;

/** A number to a few digits; a dash where nothing is known. */
function real(value, digits = 2) {
  if (!known(value)) return "\u2013";
  if (typeof value === "string") return value;
  const text = value.toFixed(digits), sign = Number(text) < 0 ? "\u2212" : "";
  return sign + (Math.abs(value) < 1 ? text.replace(/^-?0\./, ".") : text.replace("-", ""));
}

const signed = (value, digits = 2) => (Number(value.toFixed(digits)) > 0 ? "+" : "") + real(value, digits);

function readBlock(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

/** Where a probability and its interval lie between 0 and 1. */
function scale(value, low, high, kind = "") {
  const bar = make("span.scale" + kind, { "aria-hidden": "true" });
  if (known(low) && known(high)) {
    const band = bar.appendChild(make("i.band"));
    band.style.left = `${100 * low}%`;
    band.style.width = `${100 * (high - low)}%`;
  }
  if (known(value)) bar.appendChild(make("i.tick")).style.left = `${100 * Math.min(1, Math.max(0, value))}%`;
  return bar;
}

/** Switches between light and dark; until then the page follows the system. */
function themeButton() {
  const root = document.documentElement;
  const isDark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const flip = () => { root.dataset.theme = isDark() ? "light" : "dark"; };
  return make("button.icon", { onclick: flip, title: "Light or dark (d)", "aria-label": "Light or dark", id: "theme" }, "\u25d0");
}

/** The parameters behind # in the address. */
const place = () => new URLSearchParams(location.hash.slice(1));

function setPlace(parameters) {
  const hash = "#" + new URLSearchParams(parameters);
  if (location.hash !== hash) location.replace(hash);
}

const DOWN = "ArrowDown", UP = "ArrowUp", LEFT = "ArrowLeft", RIGHT = "ArrowRight";
const KEYS = [
  ["\u2191 \u2193", "previous or next step"], ["\u2192 \u2190", "open and go down, close and go up"],
  ["Enter", "open or close; in the search field, next match"], ["/", "search"], ["Esc", "leave the search"],
  ["f", "first error on the way to the step, or the next in the tree"], ["b", "end of the best path"],
  ["e  c", "open all, close all"], ["space", "replay the search, or pause"], ["d", "light or dark"], ["?", "this help"],
];

function helpDialog() {
  const rows = KEYS.map(([key, says]) => make("tr", {}, make("th", {}, make("kbd", {}, key)), make("td", {}, says)));
  const close = make("button", { onclick: () => dialog.close() }, "Close");
  const dialog = make("dialog", { id: "help", "aria-label": "Keyboard" }, make("h2", {}, "Keyboard"), make("table", {}, ...rows), close);
  return dialog;
}
