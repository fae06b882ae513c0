"""Trees to disk and out again: the store of a run, its tables, queries, labels and datasets."""
