// What is known of one node, and of the path to it.

const REASONS = {
  match: "the answer matches", mismatch: "the answer differs", no_answer: "no answer",
  length: "ran out of its token budget", checker_limit: "the checker hit a limit",
  call_failed: "a call failed", no_reference: "no reference answer",
};
const LABELS = { right: "\u2713", wrong: "\u2717", undecided: "?" };
const ROLLOUTS_AT_FIRST = 20;

class Panel {
  /** Takes what to call with a step of the path that was chosen, and its model. */
  constructor(onGo) {
    this.onGo = onGo;
    this.element = make("aside.panel", { "aria-label": "Step", tabindex: "-1" });
  }

  show(model, row) {
    const at = (name) => model.at(name, row), title = row === 0 ? "Problem" : `Step ${at("depth")}`;
    const text = put(make("pre.text", { dir: "auto" }), model.text(row) || NO_TEXT);
    const parts = [
      make("header", make("h2", title), make("small", `node ${at("node_id")}`)), text,
      this.chips(model, row, at), this.evidence(at), this.facts(row, at), this.path(model, row),
      this.rollouts(model, at("node_id")),
    ];
    this.element.replaceChildren(...parts.filter(Boolean));
    this.element.scrollTop = 0;
  }

  chips(model, row, at) {
    const chips = [], label = model.label(row) ?? "undecided", verdict = at("verdict");
    const right = at("oracle_prefix_correct"), step = at("oracle_step_correct");
    const add = (kind, text, title = "") => chips.push(make(`span.chip.${kind}`, { title }, text));
    if (verdict) add(verdict, `${verdict}: ${REASONS[at("verdict_reason")] ?? at("verdict_reason")}`);
    if (row) add(label, `label: ${label}${model.firstError[row] ? ", first error" : ""}`, model.rule.says);
    if (known(at("chance"))) add("plain", `probability of being right ${real(at("chance"))}`);
    if (row && known(right)) {
      const says = `truth: ${right ? "right" : "wrong"} so far${step === false ? ", this step wrong" : ""}`;
      add(right ? "right" : "wrong", says, "What the task knows; no label reads it");
    }
    if (at("status") !== "ok") add("unknown", `${at("status")} ${at("error_kind") ?? ""}`);
    return chips.length ? make("p.chips", ...chips) : null;
  }

  evidence(at) {
    const n = at("n_rollouts"), rows = [], wrong = [];
    const add = (name, what, title, low = at(`${what}_low`), high = at(`${what}_high`)) => {
      if (!known(at(what))) return;
      rows.push(make("tr", { title }, make("th", name), make("td", scale(at(what), low, high)),
        make("td.number", real(at(what))), make("td.range", span(low, high))));
    };
    add("value", "value", "From the rollouts that count for this node; 90 % interval");
    const worth = known(at("n_effective")) ? `, worth ${real(at("n_effective"), 1)} rollouts` : "";
    add("from children", "value_tree", `From sampled children${worth}; 90 % interval`);
    add("critic", "value_critic", "A trained critic: no evidence");
    add("outcome critic", "outcome_critic", "A trained critic: no evidence");
    add("search's q", "q", "What steered the search: optimistic, and no label reads it");
    if (at("n_no_answer")) wrong.push(`${at("n_no_answer")} without an answer`);
    if (at("n_length")) wrong.push(`${at("n_length")} out of tokens`);
    const none = at("is_terminal") ? "The solution ends here" : "No rollouts count for this node";
    const says = make("p", make("b", n ? `${at("n_right")} of ${n} rollouts right` : none),
      wrong.length ? `; among the wrong ${wrong.join(", ")}` : "",
      at("n_unknown") ? `; ${at("n_unknown")} more unknown` : "");
    const table = rows.length ? make("table.evidence", make("tbody", ...rows)) : null;
    return make("section", make("h3", "Evidence"), says, table);
  }

  facts(row, at) {
    const facts = make("dl"), tokens = at("n_tokens"), logprob = at("logprob");
    const add = (name, value) => facts.append(make("dt", name), put(make("dd"), String(value)));
    if (known(at("progress"))) {
      const range = span(at("progress_low"), at("progress_high"), signed);
      const best = known(at("prover_k")) ? ` for a best of ${at("prover_k")}` : "";
      add("progress", signed(at("progress")) + (range && ` (${range})`) + best);
    }
    if (known(at("progress_critic"))) add("critic's progress", signed(at("progress_critic")));
    const share = known(at("prior")) ? `, ${real(100 * at("prior"), 0)} % of those here` : "";
    if (row) add("samples", plural(at("n_samples"), "sample") + share);
    const each = tokens && typeof logprob === "number" ? `, ${real(logprob / tokens, 3)} a token` : "";
    if (known(logprob)) add("log-probability", real(logprob) + each);
    if (tokens) add("tokens", count(tokens));
    if (at("visits")) add("visits", count(at("visits")));
    if (known(at("answer"))) add("answer", at("answer"));
    if (known(at("finish_reason"))) add("ended by", at("finish_reason"));
    if (known(at("stop_rule"))) add("stop rule", at("stop_rule"));
    return facts.childElementCount ? facts : null;
  }

  path(model, row) {
    const steps = model.path(row).slice(1).map((step) => {
      const at = (name) => model.at(name, step), label = model.label(step) ?? "undecided";
      const n = at("n_rollouts"), onclick = () => this.onGo(step, model);
      const line = make(`button.step.${label}`, { onclick, title: `labelled ${label}` },
        make("b", { "aria-label": label }, LABELS[label]),
        put(make("bdi.text"), oneLine(model.text(step)) || NO_TEXT, 400),
        make("span.share", n ? `${at("n_right")}/${n}` : ""),
        scale(at("value"), at("value_low"), at("value_high")));
      const error = model.firstError[step] && make("b.mark.error", "first error");
      return make(step === row ? "li.on" : "li", line, error);
    });
    if (!steps.length) return null;
    const rule = make("small", { title: model.rule.says }, `labels by ${model.rule.name}`);
    return make("section.path", make("h3", "Path"), rule, make("ol", ...steps));
  }

  rollouts(model, node) {
    const all = model.rollouts(), mine = all.starts.get(node) ?? [];
    if (!mine.length) return all.leftOut ? make("p.empty", "This page was made without rollouts.") : null;
    const draw = (at) => this.rollout((name) => (all[name].length ? all[name][at] : null), node);
    const list = make("ul.rollouts", ...mine.slice(0, ROLLOUTS_AT_FIRST).map(draw));
    const rest = mine.slice(ROLLOUTS_AT_FIRST);
    const onclick = () => { list.append(...rest.map(draw)); more.remove(); };
    const more = make("button", { onclick, hidden: !rest.length }, `${count(rest.length)} more`);
    return make("section", make("h3", `${plural(mine.length, "rollout")} from here`), list, more);
  }

  rollout(cell, node) {
    const verdict = cell("verdict"), from = cell("evidence_from"), facts = [REASONS[cell("verdict_reason")]];
    if (known(cell("n_tokens"))) facts.push(plural(cell("n_tokens"), "token"));
    if (known(cell("logprob"))) facts.push(`log-probability ${real(cell("logprob"))}`);
    if (from !== node) facts.push(known(from) ? `evidence from node ${from} on` : "no evidence");
    if (cell("sampler_id") > 0) facts.push(`sampler ${cell("sampler_id")}`);
    const answer = known(cell("answer")) && put(make("bdi"), ` ${cell("answer")}`, 200);
    const text = known(cell("text")) && put(make("pre.text", { dir: "auto" }), cell("text").trim());
    const head = make("p", make(`b.mark.${verdict}`, verdict), answer);
    return make("li", head, text, make("small", facts.filter(Boolean).join(" \u00b7 ")));
  }
}
