// One tree on view: rows, search, filter, timeline.

const ROW = 30; // pixels, as in the style sheet
const REPLAY_SECONDS = 12; // at most
const MARKS = { right: "\u2713 right", wrong: "\u2717 wrong", unknown: "? unknown" };
const NO_TEXT = "(empty step)";

class TreeView {
  /** Takes a model, and what to call with the row that was chosen and this view. */
  constructor(model, onSelect, name = "") {
    Object.assign(this, { model, onSelect, name, selected: 0, colour: "value", list: [], playing: 0 });
    Object.assign(this, { found: new Set(), matches: [], onUnfilter: () => {} });
    this.rows = new Rows(ROW, (at) => this.drawRow(this.list[at]), {
      role: "tree", "aria-label": `Steps ${name}`,
      onkeydown: (event) => this.key(event), onclick: (event) => this.click(event),
    });
    this.empty = make("p.empty", { hidden: true }, "No step matches.");
    const head = make("div.row.head", { "aria-hidden": "true" },
      make("span.step", "step"), make("span.share", "right"),
      make("span.value", make("span", "value", make("small", ", 90 %"))),
      make("span.progress", "progress"), make("span.visits", "visits"));
    this.element = make("section.tree", head, this.rows.box, this.empty, this.timeline());
    this.setTime(model.size - 1);
  }

  timeline() {
    const last = String(this.model.size - 1), title = "Replay the search (space)";
    this.replay = make("button.icon.play", { onclick: () => this.play(), title }, "\u25b6");
    this.slider = make("input", {
      type: "range", min: "0", max: last, value: last, "aria-label": "Nodes so far",
      oninput: () => this.setTime(Number(this.slider.value)),
    });
    this.clock = make("output.clock");
    const says = "Nodes in the order in which they were made; figures are those of the finished tree";
    return make("div.time", { title: says }, this.replay, this.slider, this.clock);
  }

  refresh() {
    this.list = this.model.visible();
    this.placeOf = new Map(this.list.map((row, at) => [row, at]));
    this.empty.hidden = this.list.length > 0;
    this.rows.refresh(this.list.length);
  }

  isOpen(row) {
    return this.model.end[row] > row && Boolean(this.model.kept || !this.model.closed[row]);
  }

  drawRow(row) {
    const tree = this.model, at = (name) => tree.at(name, row), n = at("n_rollouts");
    const isNew = at("node_id") === tree.until && tree.until < tree.size - 1;
    const classes = [
      "div.row", row === this.selected && "on", this.found.has(row) && "found",
      tree.label(row) === "wrong" && "bad", isNew && "new",
    ];
    const element = make(classes.filter(Boolean).join("."),
      {
        role: "treeitem", id: `row${this.name}-${row}`,
        "aria-level": at("depth") + 1, "aria-selected": String(row === this.selected),
      },
      this.drawStep(row),
      make("span.share", n ? `${at("n_right")}/${n}` : ""),
      make("span.value", scale(at("value"), at("value_low"), at("value_high")),
        make("span", known(at("value")) && real(at("value")))),
      make("span.progress", known(at("progress")) && signed(at("progress"))),
      make("span.visits", at("visits") && count(at("visits"))));
    if (tree.end[row] > row) element.setAttribute("aria-expanded", String(this.isOpen(row)));
    element.dataset.row = row;
    return element;
  }

  drawStep(row) {
    const tree = this.model, verdict = tree.at("verdict", row), inner = tree.end[row] > row;
    const open = this.isOpen(row), shade = tree.shade(row, this.colour);
    const dot = make(shade === null ? "i.dot.none" : shade < 0.5 ? "i.dot.lower" : "i.dot.upper");
    if (shade !== null) dot.style.setProperty("--t", `${200 * (shade < 0.5 ? shade : shade - 0.5)}%`);
    const indent = make("span.indent");
    indent.style.width = `${16 * Math.min(24, tree.at("depth", row))}px`;
    return make("span.step", indent, make("span.caret", inner && (open ? "\u25be" : "\u25b8")), dot,
      put(make("bdi.text"), oneLine(tree.text(row)) || NO_TEXT, 240),
      verdict && make(`b.mark.${verdict}`, MARKS[verdict]),
      tree.firstError[row] && make("b.mark.error", "first error"),
      tree.twin?.[row] < 0 && make("b.mark.only", { title: "Only in this tree" }, "\u25c6"),
      inner && !open && make("small.more", `+${count(tree.end[row] - row)}`));
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
    if (event.ctrlKey || event.metaKey || event.altKey || !this.list.length) return;
    const tree = this.model, row = this.selected, at = this.placeOf.get(row) ?? 0;
    const page = Math.floor(this.rows.box.clientHeight / ROW) - 1, above = tree.parent[row] ?? -1;
    const go = (to) => this.select(this.list[Math.max(0, Math.min(this.list.length - 1, to))]);
    const all = (act) => { tree[act](); this.select(Math.max(0, row)); };
    const acts = {
      ArrowDown: () => go(at + 1), ArrowUp: () => go(at - 1),
      PageDown: () => go(at + page), PageUp: () => go(at - page),
      Home: () => go(0), End: () => go(this.list.length - 1),
      ArrowRight: () => (this.isOpen(row) ? go(at + 1) : this.toggle(row, false)),
      ArrowLeft: () => {
        if (this.isOpen(row) && !tree.kept) this.toggle(row, true);
        else if (above >= 0) this.select(above);
      },
      Enter: () => this.toggle(row), " ": () => this.play(),
      e: () => all("openAll"), c: () => all("closeAll"),
      f: () => this.toFirstError(), b: () => this.select(tree.best, { middle: true }),
    };
    if (!Object.hasOwn(acts, event.key)) return;
    event.preventDefault();
    acts[event.key]();
  }

  toFirstError() {
    const { firstError } = this.model, from = this.selected;
    const above = this.model.path(from).find((row) => firstError[row] && row !== from);
    const after = firstError.findIndex((is, row) => is && row > from);
    const next = above ?? (after >= 0 ? after : firstError.indexOf(true));
    if (next >= 0) this.select(next, { middle: true });
  }

  /** Leaves the rows that a filter and a search want; returns how many, or null for all. */
  narrow(filter, wanted) {
    const tree = this.model, words = wanted.trim().toLowerCase(), matches = [];
    const test = FILTERS.find(([name]) => name === filter)[2];
    for (let row = 0; (test || words) && row < tree.size; row++) {
      const passes = !test || (row > 0 && test(tree, row));
      if (passes && tree.text(row).toLowerCase().includes(words)) matches.push(row);
    }
    tree.keep(test || words ? matches : null);
    this.found = new Set(words ? matches : []);
    this.matches = matches;
    this.refresh();
    return test || words ? matches.length : null;
  }

  nextMatch(back) {
    const rows = this.matches, from = this.selected;
    const next = back ? rows.findLast((row) => row < from) : rows.find((row) => row > from);
    const row = next ?? rows.at(back ? -1 : 0);
    if (row !== undefined) this.select(row, { middle: true });
  }

  setTime(until) {
    this.model.until = until;
    this.slider.value = String(until);
    this.clock.textContent = `${count(until + 1)} of ${plural(this.model.size, "node")}`;
    this.refresh();
  }

  /** Replays the search from where the timeline stands, or pauses. */
  play() {
    this.replay.textContent = this.playing ? "\u25b6" : "\u275a\u275a";
    if (this.playing) {
      cancelAnimationFrame(this.playing);
      this.playing = 0;
      return;
    }
    const last = this.model.size - 1, from = this.model.until >= last ? 0 : this.model.until;
    const rate = Math.max(8, last / REPLAY_SECONDS) / 1000, start = performance.now();
    const tick = (now) => {
      const until = Math.min(last, Math.floor(from + Math.max(0, now - start) * rate));
      this.playing = requestAnimationFrame(tick);
      if (until !== this.model.until) this.setTime(until);
      const newest = this.placeOf.get(this.model.rowOf.get(until));
      if (newest !== undefined) this.rows.show(newest);
      if (until === last) this.play();
    };
    this.playing = requestAnimationFrame(tick);
  }
}
