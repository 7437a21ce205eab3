"""Masked perplexity, likelihood, tasks and generation quality; every score with an interval."""

from diffutron.evaluation.bound import LikelihoodBound, likelihood_bound
from diffutron.evaluation.likelihood import LogLikelihood, log_likelihoods
from diffutron.evaluation.perplexity import MaskedPerplexity, masked_perplexity

__all__ = [
    "LikelihoodBound",
    "LogLikelihood",
    "MaskedPerplexity",
    "likelihood_bound",
    "log_likelihoods",
    "masked_perplexity",
]
