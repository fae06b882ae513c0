// One tree as columns in pre-order: the subtree of row r is the rows r to end[r], both included.

const OPEN_AT_FIRST = 300; // rows; a larger tree starts with its best path open

class Model {
  constructor(data, rollouts) {
    Object.assign(this, data); // run, tree, rule, nodes
    this.rollouts = rollouts; // () => columns, read when first wanted
    this.size = data.nodes.node_id.length;
    this.end = data.nodes.post_end;
    this.rowOf = new Map(data.nodes.node_id.map((id, row) => [id, row]));
    this.parent = this.nodes.parent_id.map((id) => (known(id) ? this.rowOf.get(id) : -1));
    this.closed = new Uint8Array(this.size);
    this.until = this.size - 1; // the newest node that the timeline shows
    this.kept = null; // rows that a filter or a search leaves, with their ancestors
    this.found = []; // rows that match the search
    const wrong = this.parent.map((_, row) => this.label(row) === "wrong");
    this.firstError = wrong.map((is, row) => is && !wrong[this.parent[row]]);
    this.most = Math.max(1, ...this.extremes("visits"));
    this.steepest = Math.max(0.05, ...this.extremes("progress").map(Math.abs));
    if (this.size > OPEN_AT_FIRST) this.closeAll();
    this.reveal(this.best);
  }

  /** What a column says of a row; null where it says nothing. */
  at(name, row) {
    const column = this.nodes[name];
    return column && row >= 0 && column.length ? column[row] : null;
  }

  /** The least and the most in a column; the root's visits would drown all others. */
  extremes(name) {
    let most = 0, least = 0;
    for (let row = 1; row < this.size; row++) {
      const value = this.at(name, row) ?? 0;
      most = Math.max(most, value);
      least = Math.min(least, value);
    }
    return [least, most];
  }

  label(row) { return this.at("label", row); }
  text(row) { return row === 0 ? this.tree.prompt : this.nodes.step_text[row]; }
  get best() { return this.rowOf.get(this.tree.best_node_id) ?? 0; }

  path(row) {
    const rows = [];
    for (let at = row; at >= 0; at = this.parent[at]) rows.unshift(at);
    return rows;
  }

  closeAll() {
    for (let row = 1; row < this.size; row++) this.closed[row] = this.end[row] > row ? 1 : 0;
  }

  openAll() { this.closed.fill(0); }

  /** Opens all above a row. */
  reveal(row) {
    for (let at = this.parent[row]; at >= 0; at = this.parent[at]) this.closed[at] = 0;
  }

  /** Keeps the rows that match, and all above them; null keeps everything. */
  keep(matches) {
    if (!matches) { this.kept = null; return; }
    this.kept = new Uint8Array(this.size);
    for (const row of matches) {
      for (let at = row; at >= 0 && !this.kept[at]; at = this.parent[at]) this.kept[at] = 1;
    }
  }

  /** The rows on view, in order. What a filter keeps is shown open. */
  visible() {
    const rows = [], ids = this.nodes.node_id;
    for (let row = 0; row < this.size;) {
      const shown = ids[row] <= this.until && (!this.kept || this.kept[row]);
      if (shown) rows.push(row);
      row = shown && (this.kept || !this.closed[row]) ? row + 1 : this.end[row] + 1;
    }
    return rows;
  }

  /** How far a row is from the bad end (0) to the good end (1) of a colour scale; null: unknown. */
  shade(row, colour) {
    const value = this.at(colour, row);
    if (!known(value)) return null;
    if (typeof value === "boolean") return Number(value);
    if (colour === "label") return { wrong: 0, right: 1 }[value] ?? null;
    if (colour === "visits") return Math.log1p(value) / Math.log1p(this.most);
    if (colour.startsWith("progress")) return Math.min(1, Math.max(0, 0.5 + value / (2 * this.steepest)));
    return value;
  }
}

const COLOURS = [
  ["value", "value"], ["value_tree", "value from children"], ["progress", "progress"],
  ["visits", "visits"], ["q", "q of the search"], ["value_critic", "critic: value"],
  ["progress_critic", "critic: progress"], ["outcome_critic", "critic: outcome"],
  ["label", "label"], ["oracle_prefix_correct", "truth, by the task"],
];

const FILTERS = [
  ["", "all steps", null],
  ["right", "labelled right", (tree, row) => tree.label(row) === "right"],
  ["wrong", "labelled wrong", (tree, row) => tree.label(row) === "wrong"],
  ["undecided", "undecided", (tree, row) => !known(tree.label(row))],
  ["errors", "first errors", (tree, row) => tree.firstError[row]],
  ["ends", "ends of solutions", (tree, row) => tree.at("is_terminal", row) || known(tree.at("verdict", row))],
  ["solved", "right ends", (tree, row) => tree.at("verdict", row) === "right"],
  ["unknown", "unknown verdicts",
    (tree, row) => tree.at("n_unknown", row) > 0 || tree.at("verdict", row) === "unknown"],
  ["disagree", "label against truth", (tree, row) => {
    const truth = tree.at("oracle_prefix_correct", row), label = tree.label(row);
    return known(truth) && known(label) && (label === "right") !== truth;
  }],
  ["only", "\u25c6 only in this tree", (tree, row) => tree.twin?.[row] < 0],
];

/** Finds for each row of two trees the row of the other with the same steps; -1 where none is. */
function matchTrees(one, other) {
  const index = new Map(), places = [], twins = [one, other].map((tree) => new Int32Array(tree.size).fill(-1));
  const walk = (tree, meet) => {
    const key = new Array(tree.size);
    for (let row = 0; row < tree.size; row++) {
      const name = row === 0 ? "" : `${key[tree.parent[row]]}\u0000${tree.nodes.step_text[row].trim()}`;
      if (!index.has(name)) index.set(name, index.size);
      key[row] = index.get(name);
      meet(key[row], row);
    }
  };
  walk(one, (key, row) => { places[key] = row; });
  walk(other, (key, row) => {
    const twin = places[key];
    if (twin === undefined || twins[0][twin] >= 0) return;
    twins[0][twin] = row;
    twins[1][row] = twin;
  });
  [one.twin, other.twin] = twins;
}
