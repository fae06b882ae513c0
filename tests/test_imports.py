import subprocess
import sys


def test_reinforcement_without_stored_trees_loads_no_database() -> None:
    """DuckDB and pandas take some 50 MB of a process that may share its memory with a model."""
    program = (
        "import sys, treeward.cli, treeward.train.rlvr, treeward.train.srl\n"
        "print(sorted({'duckdb', 'pandas'} & set(sys.modules)))"
    )
    output = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert output.strip() == "[]"
