"""Judges nodes and answers: what the evidence says about value, progress and outcome."""
