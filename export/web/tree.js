// One tree on view: rows, search, filter, timeline.

const ROW = 30; // pixels, as in the style sheet
const REPLAY_SECONDS = 12;

class TreeView {
  /** Takes a model, and what to call with the row that was chosen. */
  constructor(model, onSelect, name = "") {
    Object.assign(this, { model, onSelect, name, selected: 0, colour: "value", list: [], playing: 0 });
    this.rows = new Rows(ROW, (at) => this.drawRow(this.list[at]), { role: "tree", "aria-label": `Steps ${name}`, onkeydown: (e) => this.key(e), onclick: (e) => this.click(e) });
    this.empty = make("p.empty", { hidden: true }, "No step matches.");
    this.replay = make("button.icon.play", { onclick: () => this.play(), title: "Replay the search (space)", "aria-label": "Replay the search" }, "\u25b6");
    this.slider = make("input", { type: "range", min: "0", max: String(model.size - 1), value: String(model.size - 1), "aria-label": "Nodes so far", oninput: () => this.setTime(Number(this.slider.value)) });
    this.clock = make("output.clock");
    const heads = ["step", "right", "value", "progress", "visits"];
    const head = make("div.row.head", { "aria-hidden": "true" }, ...heads.map((text, at) => make(`span.${["step", "share", "value", "progress", "visits"][at]}`, {}, text === "value" ? make("span", {}, "value", make("small", {}, ", 90 %")) : text)));
    const time = make("div.time", { title: "The order in which nodes were made; figures are those of the finished tree" }, this.replay, this.slider, this.clock);
    this.element = make("section.tree", { "aria-label": `Tree ${name}` }, head, this.rows.box, this.empty, time);
    this.setTime(model.size - 1);
  }

  refresh() {
    this.list = this.model.visible();
    this.placeOf = new Map(this.list.map((row, at) => [row, at]));
    this.empty.hidden = this.list.length > 0;
    this.rows.refresh(this.list.length);
  }

  drawRow(row) {
    const tree = this.model, at = (name) => tree.at(name, row), inner = tree.end[row] > row;
    const open = inner && (tree.kept || !tree.closed[row]);
    const shade = tree.shade(row, this.colour);
    const dot = make(shade === null ? "i.dot.none" : shade < 0.5 ? "i.dot.lower" : "i.dot.upper");
    if (shade !== null) dot.style.setProperty("--t", `${200 * (shade < 0.5 ? shade : shade - 0.5)}%`);
    const indent = make("span.indent");
    indent.style.width = `${16 * Math.min(24, at("depth"))}px`;
    const caret = make("span.caret", {}, inner ? (open ? "\u25be" : "\u25b8") : "");
    const verdict = at("verdict");
    const text = put(make("bdi.text"), oneLine(tree.text(row)) || "(empty step)", 240);
    const marks = [
      verdict && make(`b.mark.${verdict}`, {}, { right: "\u2713 right", wrong: "\u2717 wrong", unknown: "? unknown" }[verdict]),
      tree.firstError[row] && make("b.mark.error", {}, "first error"),
      tree.twin && tree.twin[row] < 0 && make("b.mark.only", { title: "Only in this tree" }, "only here"),
      inner && !open && make("small.more", {}, `+${count(tree.end[row] - row)}`),
    ].filter(Boolean);
    const n = at("n_rollouts");
    const cells = [
      make("span.step", {}, indent, caret, dot, text, ...marks),
      make("span.share", {}, n ? `${at("n_right")}/${n}` : ""),
      make("span.value", {}, scale(at("value"), at("value_low"), at("value_high")), make("span", {}, known(at("value")) ? real(at("value")) : "")),
      make("span.progress", {}, known(at("progress")) ? signed(at("progress")) : ""),
      make("span.visits", {}, at("visits") ? count(at("visits")) : ""),
    ];
    const classes = [row === this.selected && "on", this.found.has(row) && "found", tree.label(row) === "wrong" && "bad", at("node_id") === tree.until && tree.until < tree.size - 1 && "new"];
    const element = make(["div", "row", ...classes.filter(Boolean)].join("."), { role: "treeitem", id: `row${this.name}-${row}`, "aria-level": String(at("depth") + 1), "aria-selected": String(row === this.selected) }, ...cells);
    if (inner) element.setAttribute("aria-expanded", String(Boolean(open)));
    element.dataset.row = row;
    return element;
  }

  click(event) {
    const element = event.target.closest("[data-row]");
    if (!element) return;
    const row = Number(element.dataset.row);
    if (event.target.closest(".caret, .more")) this.toggle(row);
    this.select(row);
  }

  toggle(row, closed = !this.model.closed[row]) {
    if (this.model.end[row] > row) this.model.closed[row] = closed ? 1 : 0;
    this.refresh();
  }

  /** Chooses a row, on view or not. */
  select(row, { quiet = false, middle = false } = {}) {
    this.selected = row;
    if (this.model.nodes.node_id[row] > this.model.until) this.setTime(this.model.size - 1);
    if (this.model.kept && !this.model.kept[row]) this.onUnfilter();
    this.model.reveal(row);
    this.refresh();
    this.rows.show(this.placeOf.get(row) ?? 0, middle);
    this.rows.box.setAttribute("aria-activedescendant", `row${this.name}-${row}`);
    if (!quiet) this.onSelect(row, this);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const tree = this.model, row = this.selected, at = this.placeOf.get(row) ?? 0, page = Math.floor(this.rows.box.clientHeight / ROW) - 1;
    const isOpen = tree.end[row] > row && (tree.kept || !tree.closed[row]);
    const go = (place) => this.select(this.list[Math.max(0, Math.min(this.list.length - 1, place))]);
    const acts = {
      [DOWN]: () => go(at + 1), [UP]: () => go(at - 1), PageDown: () => go(at + page), PageUp: () => go(at - page),
      Home: () => go(0), End: () => go(this.list.length - 1),
      [RIGHT]: () => (isOpen ? go(at + 1) : this.toggle(row, false)),
      [LEFT]: () => (isOpen && !tree.kept ? this.toggle(row, true) : tree.parent[row] >= 0 && this.select(tree.parent[row])),
      Enter: () => this.toggle(row), " ": () => this.play(),
      e: () => { tree.openAll(); this.select(row); }, c: () => { tree.closeAll(); this.select(row); },
      f: () => this.toFirstError(), b: () => this.select(tree.best, { middle: true }),
    };
    if (!this.list.length || !acts[event.key]) return;
    event.preventDefault();
    acts[event.key]();
  }

  toFirstError() {
    const tree = this.model, above = tree.path(this.selected).find((row) => tree.firstError[row] && row !== this.selected);
    const rest = [...tree.firstError.keys()].filter((row) => tree.firstError[row]);
    const next = above ?? rest.find((row) => row > this.selected) ?? rest[0];
    if (next !== undefined) this.select(next, { middle: true });
  }

  /** Leaves the rows that a filter and a search want; returns how many that are, or null for all. */
  narrow(filter, wanted) {
    const tree = this.model, [, , test] = FILTERS.find(([name]) => name === filter), words = wanted.trim().toLowerCase();
    const matches = [];
    for (let row = 0; (test || words) && row < tree.size; row++) {
      if ((!test || (row && test(tree, row))) && (!words || tree.text(row).toLowerCase().includes(words))) matches.push(row);
    }
    tree.keep(test || words ? matches : null);
    this.found = new Set(words ? matches : []);
    this.matches = matches;
    this.refresh();
    return test || words ? matches.length : null;
  }

  nextMatch(back) {
    const from = this.selected, after = back ? this.matches.findLast((row) => row < from) : this.matches.find((row) => row > from);
    const row = after ?? this.matches.at(back ? -1 : 0);
    if (row !== undefined) this.select(row, { middle: true });
  }

  setTime(until) {
    this.model.until = until;
    this.slider.value = String(until);
    this.clock.textContent = `${count(until + 1)} of ${plural(this.model.size, "node")}`;
    this.refresh();
  }

  play() {
    this.replay.textContent = this.playing ? "\u25b6" : "\u275a\u275a";
    if (this.playing) { this.playing = void cancelAnimationFrame(this.playing); return; }
    const size = this.model.size, from = this.model.until >= size - 1 ? 0 : this.model.until, start = performance.now();
    const seconds = Math.min(REPLAY_SECONDS, size / 8), rate = size / (1000 * seconds);
    const tick = (now) => {
      const until = Math.min(size - 1, Math.floor(from + (now - start) * rate));
      if (until !== this.model.until) {
        this.setTime(until);
        const place = this.placeOf.get(this.model.rowOf.get(until));
        if (place !== undefined) this.rows.show(place);
      }
      this.playing = requestAnimationFrame(tick);
      if (until === size - 1) this.play();
    };
    this.playing = requestAnimationFrame(tick);
  }
}

TreeView.prototype.found = new Set();
TreeView.prototype.matches = [];
TreeView.prototype.onUnfilter = () => {};
