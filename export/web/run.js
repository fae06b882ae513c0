// The page of a run: figures, and the list of trees.

const TREE_ROW = 34;

class RunPage {
  /** Takes the block `page`, and what to call with the id of a tree to show here. */
  constructor(page, onOpen) {
    Object.assign(this, { page, onOpen, order: "place", down: true });
    this.list = [...page.trees.tree_id.keys()];
    this.rows = new Rows(TREE_ROW, (at) => this.draw(this.list[at]), { "aria-label": "Trees", onclick: (e) => this.click(e) });
    this.hits = make("output.hits");
    this.search = make("input", { type: "search", placeholder: "Search prompts and ids  /", "aria-label": "Search trees", oninput: () => this.sort() });
    const heads = [["place", "problem"], ["n_nodes", "nodes"], ["n_rollouts", "rollouts"], ["policy_tokens", "tokens"], ["pass_rate", "pass rate"]];
    const head = make("div.row.head", {}, ...heads.map(([name, text]) => make(`button.${name}`, { onclick: () => this.by(name), title: "Sort" }, text)));
    this.empty = make("p.empty", { hidden: true }, page.trees.tree_id.length ? "No tree matches." : "No tree is finished yet.");
    this.how = make("p.how", { role: "status" });
    const left = page.n_trees - this.list.length, cut = left > 0 ? make("p.note", {}, `The list holds the first ${count(this.list.length)} of ${plural(page.n_trees, "tree")}; the figures count all.`) : null;
    const tiles = page.tiles.map(([name, value, note]) => make("div.tile", {}, make("b", {}, value), make("span", {}, name), make("small", {}, note)));
    this.element = make("div.run", {}, make("div.tiles", {}, ...tiles), document.getElementById("figures"),
      make("section.trees", {}, make("div.bar", {}, make("h2", {}, "Trees"), this.search, this.hits), cut, this.how, head, this.rows.box, this.empty));
    this.sort();
  }

  draw(at) {
    const cell = (name) => (this.page.trees[name].length ? this.page.trees[name][at] : null), rate = cell("pass_rate"), status = cell("status");
    const prompt = put(make("bdi.text"), oneLine(cell("prompt")), 240), here = this.page.embedded.includes(cell("tree_id"));
    const element = make("div.row", {}, make("button.place", { title: here ? "Show this tree" : "How to show this tree" }, prompt, status === "ok" ? null : make("b.mark.unknown", {}, status)),
      ...["n_nodes", "n_rollouts", "policy_tokens"].map((name) => make(`span.${name}`, {}, count(cell(name)))), make("span.pass_rate", {}, scale(rate, null, null), make("span", {}, real(rate))));
    element.dataset.tree = cell("tree_id");
    return element;
  }

  click(event) {
    const id = event.target.closest("[data-tree]")?.dataset.tree;
    if (!id) return;
    if (this.page.embedded.includes(id)) this.onOpen(id);
    else this.how.replaceChildren("This tree has a page of its own: ", put(make("code"), `${this.page.command} --tree ${id} --out tree.html`));
  }

  by(name) {
    this.down = this.order === name ? !this.down : name === "place";
    this.order = name;
    this.sort();
  }

  sort() {
    const { trees } = this.page, words = this.search.value.trim().toLowerCase(), sign = this.down ? 1 : -1;
    const value = (at) => (this.order === "place" ? at : trees[this.order][at] ?? -1);
    const matches = (at) => !words || trees.prompt[at].toLowerCase().includes(words) || trees.tree_id[at].includes(words) || trees.problem_id[at].toLowerCase().includes(words);
    this.list = [...trees.tree_id.keys()].filter(matches).sort((a, b) => sign * (value(a) - value(b)) || a - b);
    this.hits.textContent = words ? plural(this.list.length, "match").replace("matchs", "matches") : "";
    this.empty.hidden = this.list.length > 0;
    this.rows.box.style.height = `${TREE_ROW * this.list.length + 8}px`;
    this.rows.refresh(this.list.length);
  }
}
