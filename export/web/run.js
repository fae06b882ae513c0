// The page of a run: figures, and the list of trees.

const TREE_ROW = 34; // pixels, as in the style sheet
const COLUMNS = [
  ["place", "problem"], ["n_nodes", "nodes"], ["n_rollouts", "rollouts"], ["policy_tokens", "tokens"],
  ["pass_rate", "pass rate"],
];

class RunPage {
  /** Takes the block `page`, and what to call with the id of a tree to show here. */
  constructor(page, onOpen) {
    Object.assign(this, { page, onOpen, order: "place", down: true });
    this.here = new Set(page.embedded);
    this.rows = new Rows(TREE_ROW, (at) => this.draw(this.list[at]), {
      "aria-label": "Trees", onclick: (event) => this.click(event),
    });
    this.search = make("input", {
      type: "search", placeholder: "Search prompts and ids  /", "aria-label": "Search trees",
      oninput: () => this.sort(),
    });
    this.hits = make("output.hits");
    this.how = make("p.how", { role: "status" });
    this.empty = make("p.empty", { hidden: true }, page.n_trees ? "No tree matches." : "No tree is finished yet.");
    const heads = COLUMNS.map(([name, text]) => make(`button.${name}`, { onclick: () => this.by(name) }, text));
    const tiles = page.tiles.map(([name, value, note]) =>
      make("div.tile", make("b", value), make("span", name), make("small", note)));
    const listed = page.trees.tree_id.length;
    const cut = `The list holds ${count(listed)} of ${plural(page.n_trees, "tree")}; the figures count all.`;
    this.element = make("div.run", make("div.tiles", ...tiles), document.getElementById("figures"),
      make("section.trees", make("div.bar", make("h2", "Trees"), this.search, this.hits),
        listed < page.n_trees && make("p.note", cut), this.how,
        make("div.row.head", ...heads), this.rows.box, this.empty));
    this.sort();
  }

  cell(name, at) {
    const column = this.page.trees[name];
    return column.length ? column[at] : null;
  }

  draw(at) {
    const cell = (name) => this.cell(name, at), title = this.here.has(cell("tree_id")) ? "Show" : "How to show it";
    const element = make("div.row",
      make("button.place", { title }, put(make("bdi.text"), oneLine(cell("prompt")) || "(empty prompt)", 240),
        cell("status") !== "ok" && make("b.mark.unknown", cell("status"))),
      ...COLUMNS.slice(1, 4).map(([name]) => make(`span.${name}`, count(cell(name)))),
      make("span.pass_rate", scale(cell("pass_rate")), make("span", real(cell("pass_rate")))));
    element.dataset.tree = cell("tree_id");
    return element;
  }

  click(event) {
    const id = event.target.closest("[data-tree]")?.dataset.tree;
    const command = `${this.page.command} --tree ${id} --out tree.html`;
    if (this.here.has(id)) this.onOpen(id);
    else if (id) this.how.replaceChildren("This tree has a page of its own: ", put(make("code"), command));
  }

  /** Sorts by a column; numbers start with the largest, and the same column again turns round. */
  by(name) {
    this.down = this.order === name ? !this.down : name === "place";
    this.order = name;
    this.sort();
  }

  sort() {
    const words = this.search.value.trim().toLowerCase(), sign = this.down ? 1 : -1;
    const value = (at) => (this.order === "place" ? at : this.cell(this.order, at) ?? -1);
    const says = (at) => ["prompt", "tree_id", "problem_id"].map((name) => this.cell(name, at)).join("\n");
    this.list = [...this.page.trees.tree_id.keys()].filter((at) => says(at).toLowerCase().includes(words));
    this.list.sort((a, b) => sign * (value(a) - value(b)) || a - b);
    this.hits.textContent = words ? plural(this.list.length, "tree") : "";
    this.empty.hidden = this.list.length > 0;
    this.rows.box.style.height = `${TREE_ROW * this.list.length + 8}px`;
    this.rows.refresh(this.list.length);
  }
}
