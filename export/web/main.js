// Puts the page together, and follows keys and the address.

/** Indexes rollouts by the node where they started; they are read when first wanted. */
function lazyRollouts(name, leftOut) {
  let read = null;
  return () => {
    if (read) return read;
    read = { ...readBlock(name), starts: new Map(), leftOut };
    read.node_id.forEach((node, at) => {
      if (!read.starts.has(node)) read.starts.set(node, []);
      read.starts.get(node).push(at);
    });
    return read;
  };
}

function loadTree(at, leftOut) {
  return new Model(readBlock(`tree-${at}`), lazyRollouts(`rollouts-${at}`, leftOut));
}

function treeHeading({ tree, run }) {
  const unknown = tree.n_unknown ? `, ${count(tree.n_unknown)} unknown` : "";
  const facts = [
    plural(tree.n_nodes, "node"),
    `${plural(tree.n_rollouts, "rollout")}, ${count(tree.n_right)} right${unknown}`,
    `pass rate ${real(tree.pass_rate)}`, `${count(tree.policy_tokens)} tokens`,
    `search ${tree.search}`, `policy ${tree.policy}`, `seed ${tree.seed}`, `run ${run}`,
  ];
  const failure = `${tree.status}: ${tree.error_kind ?? ""} ${tree.error ?? ""}`;
  return make("div.heading",
    put(make("h1", { dir: "auto" }), tree.prompt.trim() || "(empty prompt)", 600),
    known(tree.answer) && put(make("p.answer"), `reference answer ${tree.answer}`, 300),
    put(make("p.facts"), facts.join("  \u00b7  ")),
    tree.status !== "ok" && put(make("p.problem"), failure));
}

/** Shows one tree, or two side by side; `onPlace` hears which of them is at which node. */
class Stage {
  constructor(app, models, { back, onPlace }) {
    Object.assign(this, { app, models, onPlace, active: 0 });
    this.same = models.length > 1 && models[0].tree.problem_id === models[1].tree.problem_id;
    if (this.same) matchTrees(...models);
    this.panel = new Panel((row, model) => this.views[models.indexOf(model)].select(row, { middle: true }));
    const chosen = (row, view) => this.chosen(row, view);
    this.views = models.map((model, at) => new TreeView(model, chosen, models.length > 1 ? "AB"[at] : ""));
    for (const view of this.views) view.onUnfilter = () => this.unfilter();
    const columns = models.map((model, at) => make("div.column", treeHeading(model), this.views[at].element));
    const kind = models.length > 1 ? "div.stage.two" : "div.stage";
    app.replaceChildren(this.bar(back), make(kind, ...columns, this.panel.element));
    app.dataset.colour = this.colour.value;
  }

  bar(back) {
    const has = (name) => this.models.some((model) => model.nodes[name]?.some(known));
    const option = ([value, text]) => make("option", { value }, text);
    const fits = ([name]) => (name !== "only" || this.same) && (name !== "disagree" || has("oracle_prefix_correct"));
    this.colour = make("select", { id: "colour", onchange: () => this.paint() },
      ...COLOURS.filter(([name]) => has(name)).map(option));
    this.filter = make("select", { id: "filter", onchange: () => this.narrow() },
      ...FILTERS.filter(fits).map(option));
    this.search = make("input", {
      type: "search", id: "search", placeholder: "Search steps  /", "aria-label": "Search steps",
      oninput: () => this.narrow(), onkeydown: (event) => this.searchKey(event),
    });
    this.hits = make("output.hits");
    const act = (name, key, text) => make("button", { title: `${text} (${key})`, onclick: () => this.each(name) }, text);
    return make("div.bar", back, make("label", "colour ", this.colour), make("label", "show ", this.filter),
      this.search, this.hits, make("span.grow"),
      act("openAll", "e", "open all"), act("closeAll", "c", "close all"));
  }

  chosen(row, view) {
    this.active = this.views.indexOf(view);
    this.panel.show(view.model, row);
    this.onPlace(this.active, view.model.nodes.node_id[row]);
    const other = this.views[1 - this.active], twin = view.model.twin?.[row] ?? -1;
    if (other && twin >= 0) other.select(twin, { quiet: true, middle: true });
    else if (other) {
      other.selected = -1;
      other.refresh();
    }
  }

  select(at, node) {
    const view = this.views[at];
    view.select(view.model.rowOf.get(node) ?? 0, { middle: true });
  }

  each(name) {
    for (const view of this.views) {
      view.model[name]();
      view.refresh();
    }
  }

  paint() {
    this.app.dataset.colour = this.colour.value;
    for (const view of this.views) {
      view.colour = this.colour.value;
      view.refresh();
    }
  }

  narrow() {
    const left = this.views.map((view) => view.narrow(this.filter.value, this.search.value));
    this.hits.textContent = left[0] === null ? "" : plural(left.reduce((a, b) => a + b), "step");
  }

  unfilter() {
    this.filter.value = this.search.value = "";
    this.narrow();
  }

  searchKey(event) {
    const view = this.views[this.active];
    if (event.key === "Enter") view.nextMatch(event.shiftKey);
    if (event.key !== "Escape") return;
    this.search.value = "";
    this.narrow();
    view.rows.box.focus();
  }
}

class Site {
  constructor(page) {
    Object.assign(this, { page, app: make("main"), help: helpDialog(), stage: null, run: null, opened: null });
    const help = make("button.icon", { title: "Keyboard (?)", onclick: () => this.help.showModal() }, "?");
    const title = put(make("span"), page.title, 120);
    const top = make("header.top", make("b", "treeward"), title, make("span.grow"), themeButton(), help);
    document.getElementById("app").append(top, this.app, this.help);
    document.title = `Treeward: ${page.title}`;
    addEventListener("hashchange", () => {
      const own = location.hash === ownPlace;
      ownPlace = null;
      if (!own) this.follow();
    });
    document.addEventListener("keydown", (event) => this.key(event));
    if (page.kind !== "run") this.open(page.kind === "compare" ? [0, 1] : [0]);
    this.follow();
    this.stage?.views[0].rows.box.focus({ preventScroll: true });
  }

  /** Opens trees by the numbers of their blocks. */
  open(numbers, id = null) {
    const { kind, left_out: leftOut } = this.page;
    const onclick = () => { location.hash = ""; };
    const back = kind === "run" ? make("button.back", { onclick }, "\u2190 all trees") : null;
    const onPlace = (at, node) =>
      setPlace(kind === "run" ? { tree: id, node } : kind === "compare" ? { side: "ab"[at], node } : { node });
    this.stage = new Stage(this.app, numbers.map((at) => loadTree(at, leftOut)), { back, onPlace });
    this.opened = id;
  }

  /** Shows what the address asks for. */
  follow() {
    const asked = place(), node = Number(asked.get("node") ?? 0), tree = asked.get("tree");
    if (this.page.kind !== "run") this.stage.select(asked.get("side") === "b" && this.stage.views[1] ? 1 : 0, node);
    else if (this.page.embedded.includes(tree)) {
      if (this.opened !== tree) this.open([this.page.embedded.indexOf(tree)], tree);
      this.stage.select(0, node);
    } else this.showRun();
  }

  showRun() {
    const open = (id) => { location.hash = new URLSearchParams({ tree: id, node: 0 }); };
    this.run ??= new RunPage(this.page, open);
    this.stage = this.opened = null;
    const heading = make("div.heading", put(make("h1"), `Run ${this.page.run}`), put(make("p.facts"), this.page.says));
    this.app.replaceChildren(heading, this.run.element);
  }

  key(event) {
    const typing = event.target.matches("input:not([type=range]), select, textarea");
    if (event.ctrlKey || event.metaKey || event.altKey || typing || this.help.open) return;
    const acts = {
      "/": () => (this.stage ?? this.run).search.focus(), "?": () => this.help.showModal(),
      d: () => document.getElementById("theme").click(),
    };
    if (Object.hasOwn(acts, event.key)) {
      event.preventDefault();
      acts[event.key]();
    } else if (!event.target.closest(".rows, button, input")) {
      this.stage?.views[this.stage.active].key(event);
    }
  }
}

new Site(readBlock("page"));
