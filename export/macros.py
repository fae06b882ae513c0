"""The macros and views that a run's database has beside its tables.

Each macro about one tree names that tree in every table it reads, so that a scan finds the tree
without reading the others, and scans it once, which takes longer than the rest. Whole rows of
`nodes` come out of those that return nodes; what these need of another row is a window over all.
"""

import re

from treeward.export.label_spec import TIE

MIN_ROLLOUTS = 8
"""Rollouts without a success that make a prefix wrong under the default label rule."""

LABELLED = "n_rollouts > 0 OR verdict IN ('right', 'wrong')"
"""Whether a node has a label: rollouts count for it, or a solution ends right or wrong there."""

_WRONG = (
    "(error.n_rollouts >= min_rollouts"
    " OR (error.is_terminal AND coalesce(error.verdict = 'wrong', false)))"
)
"""Whether a step without a success at or below it is an error; otherwise it is undecided."""

MACROS = f"""
CREATE MACRO path_to(tree, node) AS TABLE
    SELECT * FROM nodes WHERE tree_id = tree
    QUALIFY any_value(pre) FILTER (node_id = node) OVER () BETWEEN pre AND post_end
    ORDER BY depth;

CREATE MACRO best_path(tree) AS TABLE
    FROM path_to(tree, (SELECT best_node_id FROM trees WHERE tree_id = tree));

CREATE MACRO subtree(tree, node) AS TABLE
    SELECT * FROM nodes WHERE tree_id = tree AND list_contains(path, node) ORDER BY pre;

CREATE MACRO siblings(tree, node) AS TABLE
    SELECT * FROM nodes WHERE tree_id = tree
    QUALIFY parent_id = any_value(parent_id) FILTER (node_id = node) OVER () AND node_id <> node
    ORDER BY child_rank;

-- A step is right where a success lies at or below it; wrong where none does in enough rollouts, or
-- where a wrong solution ends; otherwise undecided, and then nobody knows which error is the first.
CREATE MACRO first_error(tree, node, min_rollouts := {MIN_ROLLOUTS}) AS TABLE
    SELECT * FROM nodes error WHERE tree_id = tree
    QUALIFY node_id = any_value(fails_from) FILTER (node_id = node) OVER () AND {_WRONG};

CREATE MACRO first_errors(min_rollouts := {MIN_ROLLOUTS}) AS TABLE
    SELECT error.* FROM nodes error WHERE error.fails_from = error.node_id AND {_WRONG};

-- Two steps from the same prefix, one worth more than the other by at least a margin.
CREATE MACRO contrastive_pairs(margin := 0.2) AS TABLE
    SELECT good.tree_id, good.problem_id, good.parent_id,
        good.node_id AS chosen_id, bad.node_id AS rejected_id,
        good.step_text AS chosen, bad.step_text AS rejected,
        good.value AS chosen_value, bad.value AS rejected_value,
        good.n_rollouts AS chosen_rollouts, bad.n_rollouts AS rejected_rollouts,
        good.value - bad.value AS difference,
        good.value_low > bad.value_high AS separated
    FROM nodes good JOIN nodes bad
    ON good.tree_id = bad.tree_id AND good.parent_id = bad.parent_id
    AND good.value - bad.value >= margin - {TIE} AND good.node_id <> bad.node_id;

-- What a critic said of nodes beside what rollouts from them came to, by what it said.
CREATE MACRO critic_agreement(bins := 10) AS TABLE
    SELECT least(floor(value_critic * bins), bins - 1)::INT AS bin,
        count(*) AS n_nodes, sum(n_rollouts)::BIGINT AS n_rollouts,
        sum(value_critic * n_rollouts) / sum(n_rollouts) AS critic,
        sum(n_right) / sum(n_rollouts) AS counted,
        sum(n_rollouts * value_critic * value_critic - 2 * n_right * value_critic + n_right)
            / sum(n_rollouts) AS brier
    FROM nodes WHERE value_critic IS NOT NULL AND n_rollouts > 0 GROUP BY bin ORDER BY bin;

CREATE TEMP VIEW uncertain_nodes AS
    SELECT tree_id, problem_id, node_id, depth, step_text, n_right, n_rollouts, n_unknown,
        value, value_low, value_high, value_high - value_low AS uncertainty
    FROM nodes WHERE NOT is_terminal AND value IS NOT NULL;

CREATE TEMP VIEW problem_costs AS
    SELECT problem_id, tree_id, solved, pass_rate, trees.n_nodes, trees.n_rollouts,
        coalesce(known.n_labels, 0) AS n_labels,
        policy_tokens, fast_tokens, prompt_tokens,
        policy_tokens / nullif(known.n_labels, 0) AS tokens_per_label
    FROM trees LEFT JOIN (
        SELECT tree_id, count(*) AS n_labels FROM nodes
        WHERE {LABELLED} GROUP BY tree_id
    ) known USING (tree_id);
"""

NAMES = frozenset(re.findall(r"CREATE MACRO (\w+)", MACROS))
"""The names of the macros."""
