"""Weights, tokenizers, cards and a small sample corpus; no code."""
