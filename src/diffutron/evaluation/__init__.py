"""Masked perplexity, and later bounds, tasks and generation quality; every score with an interval."""

from diffutron.evaluation.perplexity import MaskedPerplexity, masked_perplexity

__all__ = ["MaskedPerplexity", "masked_perplexity"]
