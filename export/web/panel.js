// What is known of one node, and of the path to it.

const REASONS = {
  match: "the answer matches", mismatch: "the answer differs", no_answer: "no answer", length: "ran out of its token budget",
  checker_limit: "the checker hit a limit", call_failed: "a call failed", no_reference: "no reference answer",
};
const ROLLOUTS_AT_FIRST = 20;

class Panel {
  constructor(onGo) {
    this.onGo = onGo; // (row, model): a step of the path was chosen
    this.element = make("aside.panel", { "aria-label": "Step", tabindex: "-1" });
  }

  show(model, row) {
    const at = (name) => model.at(name, row), node = at("node_id");
    const title = row === 0 ? "Problem" : `Step ${at("depth")}`;
    const parts = [
      make("header", {}, make("h2", {}, title), make("small", {}, `node ${node}`)),
      put(make("pre.text", { dir: "auto" }), model.text(row) || "(empty step)"),
      this.chips(model, row), this.evidence(model, row), this.facts(model, row), this.path(model, row), this.rollouts(model, row),
    ];
    this.element.replaceChildren(...parts.filter(Boolean));
    this.element.scrollTop = 0;
  }

  chips(model, row) {
    const at = (name) => model.at(name, row), chips = [], truth = [at("oracle_step_correct"), at("oracle_prefix_correct")];
    const add = (kind, text, title = "") => chips.push(make(`span.chip.${kind}`, { title }, text));
    if (at("verdict")) add(at("verdict"), `${at("verdict")}: ${REASONS[at("verdict_reason")] ?? at("verdict_reason")}`);
    if (row) add(model.label(row) ?? "undecided", `label: ${model.label(row) ?? "undecided"}${model.firstError[row] ? ", first error" : ""}`, model.rule.says);
    if (known(at("chance"))) add("plain", `P(right) ${real(at("chance"))}`);
    if (row && known(truth[1])) add(truth[1] ? "right" : "wrong", `truth: ${truth[1] ? "right so far" : "wrong so far"}${truth[0] === false ? ", this step wrong" : ""}`, "What the task knows; no label reads it");
    if (at("status") && at("status") !== "ok") add("unknown", `${at("status")} ${at("error_kind") ?? ""}`);
    return chips.length ? make("p.chips", {}, ...chips) : null;
  }

  evidence(model, row) {
    const at = (name) => model.at(name, row), n = at("n_rollouts"), rows = [];
    const add = (name, what, low, high, title = "") => {
      if (known(at(what))) rows.push(make("tr", { title }, make("th", {}, name), make("td", {}, scale(at(what), at(low), at(high), ".wide")), make("td.number", {}, real(at(what))), make("td.range", {}, known(at(low)) ? `${real(at(low))} \u2026 ${real(at(high))}` : "")));
    };
    add("value", "value", "value_low", "value_high", "From the rollouts that count for this node; 90 % interval");
    add("from children", "value_tree", "value_tree_low", "value_tree_high", `From sampled children; worth ${real(at("n_effective"), 1)} rollouts`);
    add("critic", "value_critic", "", "", "A trained critic; no evidence");
    add("outcome critic", "outcome_critic", "", "", "A trained critic; no evidence");
    add("search's q", "q", "", "", "What steered the search: optimistic, and no label reads it");
    const wrong = [[at("n_no_answer"), "without an answer"], [at("n_length"), "out of tokens"]].filter(([k]) => k).map(([k, text]) => `${k} ${text}`);
    const head = make("p", {}, make("b", {}, n ? `${at("n_right")} of ${n} rollouts right` : at("is_terminal") ? "The solution ends here" : "No rollouts count for this node"),
      wrong.length ? `; among the wrong ${wrong.join(", ")}` : "", at("n_unknown") ? `; ${at("n_unknown")} more unknown` : "");
    return make("section", {}, make("h3", {}, "Evidence"), head, rows.length ? make("table.evidence", {}, make("tbody", {}, ...rows)) : null);
  }

  facts(model, row) {
    const at = (name) => model.at(name, row), tokens = at("n_tokens"), range = (low, high) => (known(low) ? ` (${signed(low)} \u2026 ${signed(high)})` : "");
    const facts = [
      ["progress", known(at("progress")) && signed(at("progress")) + range(at("progress_low"), at("progress_high")) + ` for a best of ${at("prover_k")}`],
      ["critic's progress", known(at("progress_critic")) && signed(at("progress_critic"))],
      ["samples", row && plural(at("n_samples"), "sample") + (known(at("prior")) ? `, ${real(100 * at("prior"), 0)} % of those here` : "")],
      ["log-probability", known(at("logprob")) && real(at("logprob")) + (tokens ? `, ${real(at("logprob") / tokens, 3)} a token` : "")],
      ["tokens", tokens > 0 && count(tokens)], ["visits", at("visits") > 0 && count(at("visits"))],
      ["answer", at("answer")], ["ended by", at("finish_reason")], ["stop rule", at("stop_rule")],
    ].filter(([, value]) => value);
    return facts.length ? make("dl", {}, ...facts.flatMap(([name, value]) => [make("dt", {}, name), put(make("dd"), String(value))])) : null;
  }

  path(model, row) {
    const steps = model.path(row).slice(1).map((step) => {
      const label = model.label(step) ?? "undecided", mark = { right: "\u2713", wrong: "\u2717", undecided: "?" }[label];
      const n = model.at("n_rollouts", step), share = n ? `${model.at("n_right", step)}/${n}` : "";
      const line = make(`button.step.${label}`, { onclick: () => this.onGo(step, model), title: `labelled ${label}` },
        make("b", { "aria-label": label }, mark), put(make("bdi.text"), oneLine(model.text(step)) || "(empty step)", 400), make("span.share", {}, share), scale(model.at("value", step), model.at("value_low", step), model.at("value_high", step)));
      return make(step === row ? "li.on" : "li", {}, line, model.firstError[step] ? make("b.mark.error", {}, "first error") : null);
    });
    if (!steps.length) return null;
    const rule = make("small", { title: model.rule.says }, `labels by ${model.rule.name}`);
    return make("section.path", {}, make("h3", {}, "Path"), rule, make("ol", {}, ...steps));
  }

  rollouts(model, row) {
    const all = model.rollouts(), starts = all.starts, node = model.at("node_id", row), mine = starts.get(node) ?? [];
    const cell = (name, at) => (all[name].length ? all[name][at] : null);
    const draw = (at) => {
      const verdict = cell("verdict", at), from = cell("evidence_from", at), facts = [
        REASONS[cell("verdict_reason", at)], known(cell("n_tokens", at)) && plural(cell("n_tokens", at), "token"), known(cell("logprob", at)) && `log-probability ${real(cell("logprob", at))}`,
        !known(from) ? "no evidence" : from !== node && `evidence from node ${from}`, cell("sampler_id", at) > 0 && `sampler ${cell("sampler_id", at)}`,
      ].filter(Boolean).join(" \u00b7 ");
      const text = known(cell("text", at)) ? put(make("pre.text", { dir: "auto" }), cell("text", at).trim()) : null;
      return make(`li.${verdict}`, {}, make("p", {}, make(`b.mark.${verdict}`, {}, verdict), known(cell("answer", at)) ? put(make("bdi"), ` ${cell("answer", at)}`, 200) : null), text, make("small", {}, facts));
    };
    if (!mine.length) return all.leftOut ? make("p.empty", {}, "This page was made without rollouts.") : null;
    const list = make("ul.rollouts", {}, ...mine.slice(0, ROLLOUTS_AT_FIRST).map(draw)), rest = mine.slice(ROLLOUTS_AT_FIRST);
    const more = rest.length ? make("button", { onclick: () => { list.append(...rest.map(draw)); more.remove(); } }, `${count(rest.length)} more`) : null;
    return make("section", {}, make("h3", {}, `${plural(mine.length, "rollout")} from here`), list, more);
  }
}
