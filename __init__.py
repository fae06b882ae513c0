"""Searches trees of reasoning steps and writes what it learns about every step as data."""

__version__ = "0.1.0"
