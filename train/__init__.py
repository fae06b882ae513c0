"""Learns from datasets."""
