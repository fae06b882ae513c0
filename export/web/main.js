// Puts the page together, and follows keys and the address.

/** Indexes rollouts by the node where they started; parsed when a node is first shown. */
function lazyRollouts(name, leftOut) {
  let read = null;
  return () => {
    if (read) return read;
    read = { ...readBlock(name), starts: new Map(), leftOut };
    read.node_id.forEach((node, at) => (read.starts.get(node) ?? read.starts.set(node, []).get(node)).push(at));
    return read;
  };
}

const loadTree = (at, leftOut) => new Model(readBlock(`tree-${at}`), lazyRollouts(`rollouts-${at}`, leftOut));

function treeHeading(model) {
  const { tree, run } = model, facts = [
    plural(tree.n_nodes, "node"), `${plural(tree.n_rollouts, "rollout")}, ${count(tree.n_right)} right` + (tree.n_unknown ? `, ${count(tree.n_unknown)} unknown` : ""),
    known(tree.pass_rate) && `pass rate ${real(tree.pass_rate)}`, `${count(tree.policy_tokens)} tokens`, `search ${tree.search}`, `policy ${tree.policy}`, `seed ${tree.seed}`, `run ${run}`,
  ].filter(Boolean);
  const heading = make("div.heading", {}, put(make("h1", { dir: "auto" }), tree.prompt.trim() || "(empty prompt)", 600), known(tree.answer) ? put(make("p.answer"), `reference answer ${tree.answer}`, 300) : null, put(make("p.facts"), facts.join("  \u00b7  ")));
  if (tree.status !== "ok") heading.append(put(make("p.problem"), `${tree.status}: ${tree.error_kind ?? ""} ${tree.error ?? ""}`));
  return heading;
}

/** Shows one tree, or two side by side; returns what must be called when they leave the page. */
function showTrees(app, models, { back, onPlace }) {
  const same = models.length > 1 && models[0].tree.problem_id === models[1].tree.problem_id;
  if (same) matchTrees(...models);
  const panel = new Panel((row, model) => views[models.indexOf(model)].select(row, { middle: true }));
  let active = 0;
  const chosen = (row, view) => {
    active = views.indexOf(view);
    panel.show(view.model, row);
    onPlace(active, view.model.nodes.node_id[row]);
    const twin = view.model.twin?.[row] ?? -1;
    for (const other of views) {
      if (other === view) continue;
      if (twin >= 0) other.select(twin, { quiet: true, middle: true });
      else { other.selected = -1; other.refresh(); }
    }
  };
  const views = models.map((model, at) => new TreeView(model, chosen, models.length > 1 ? "AB"[at] : ""));
  const has = (name) => models.some((model) => model.nodes[name]?.some(known));
  const option = ([name, text]) => make("option", { value: name }, text);
  const colour = make("select", { "aria-label": "Colour by", id: "colour", onchange: () => { app.dataset.colour = colour.value; for (const view of views) { view.colour = colour.value; view.refresh(); } } }, ...COLOURS.filter(([name]) => has(name)).map(option));
  const filters = FILTERS.filter(([name]) => (name !== "only" || same) && (name !== "disagree" || has("oracle_prefix_correct")));
  const filter = make("select", { "aria-label": "Show", id: "filter", onchange: () => narrow() }, ...filters.map(option));
  const search = make("input", { type: "search", id: "search", placeholder: "Search steps  /", "aria-label": "Search steps", oninput: () => narrow() });
  const hits = make("output.hits");
  const narrow = () => {
    const left = views.map((view) => view.narrow(filter.value, search.value));
    hits.textContent = left[0] === null ? "" : left.reduce((a, b) => a + b) === 1 ? "1 step" : `${count(left.reduce((a, b) => a + b))} steps`;
  };
  for (const view of views) view.onUnfilter = () => { filter.value = search.value = ""; narrow(); };
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter") views[active].nextMatch(event.shiftKey);
    if (event.key === "Escape") { search.value = ""; narrow(); views[active].rows.box.focus(); }
  });
  const act = (name, key, title) => make("button", { title: `${title} (${key})`, onclick: () => { for (const view of views) { view.model[name](); view.select(view.selected, { quiet: true }); } } }, title);
  const bar = make("div.bar", { role: "toolbar", "aria-label": "View" }, back, make("label", {}, "colour ", colour), make("label", {}, "show ", filter), search, hits, make("span.grow"), act("openAll", "e", "open all"), act("closeAll", "c", "close all"));
  const columns = models.map((model, at) => make("div.column", {}, treeHeading(model), views[at].element));
  app.replaceChildren(bar, make(models.length > 1 ? "div.stage.two" : "div.stage", {}, ...columns, panel.element));
  app.dataset.colour = colour.value = "value";
  return { views, search, select: (at, node) => views[at].select(views[at].model.rowOf.get(node) ?? 0, { middle: true }) };
}

function start() {
  const page = readBlock("page"), app = make("main"), help = helpDialog();
  document.getElementById("app").append(make("header.top", {}, make("a", { href: "#" }, "treeward"), put(make("span"), page.title, 120), make("span.grow"), themeButton(), make("button.icon", { title: "Keyboard (?)", "aria-label": "Keyboard", onclick: () => help.showModal() }, "?")), app, help);
  let shown = null, run = null, opened = null;
  const open = (names) => {
    const back = page.kind === "run" ? make("button.back", { onclick: () => { location.hash = ""; } }, "\u2190 all trees") : null;
    const place = (at, node) => setPlace(page.kind === "run" ? { tree: names[0], node } : page.kind === "compare" ? { side: "ab"[at], node } : { node });
    const at = (name) => (page.kind === "run" ? page.embedded.indexOf(name) : name);
    shown = showTrees(app, names.map((name) => loadTree(at(name), page.left_out)), { back, onPlace: place });
    opened = names[0];
  };
  const follow = () => {
    const asked = place(), node = Number(asked.get("node") ?? 0);
    if (page.kind !== "run") { shown.select(asked.get("side") === "b" ? 1 : 0, node); return; }
    const tree = asked.get("tree");
    if (page.embedded.includes(tree)) {
      if (opened !== tree) open([tree]);
      shown.select(0, node);
    } else {
      run ??= new RunPage(page, (id) => { location.hash = new URLSearchParams({ tree: id, node: 0 }); });
      [shown, opened] = [null, null];
      app.replaceChildren(make("div.heading", {}, put(make("h1"), `Run ${page.run}`), put(make("p.facts"), page.says)), run.element);
    }
    document.title = `Treeward: ${tree ?? page.title}`;
  };
  if (page.kind !== "run") open(page.kind === "compare" ? [0, 1] : [0]);
  document.title = `Treeward: ${page.title}`;
  addEventListener("hashchange", follow);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea") || help.open) return;
    const acts = { "/": () => (shown ?? run).search.focus(), "?": () => help.showModal(), d: () => document.getElementById("theme").click() };
    if (acts[event.key]) { event.preventDefault(); acts[event.key](); }
  });
  follow();
  shown?.views[0].rows.box.focus({ preventScroll: true });
}

start();
