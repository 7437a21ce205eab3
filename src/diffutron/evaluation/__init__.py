"""Masked perplexity, the likelihood bound, and later tasks and generation quality; every score with an interval."""

from diffutron.evaluation.bound import LikelihoodBound, likelihood_bound
from diffutron.evaluation.perplexity import MaskedPerplexity, masked_perplexity

__all__ = ["LikelihoodBound", "MaskedPerplexity", "likelihood_bound", "masked_perplexity"]
