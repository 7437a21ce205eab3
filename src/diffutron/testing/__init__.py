"""A tiny model, tokenizer and corpus, and slow oracles: nothing here needs a network, a GPU or patience."""

from diffutron.testing.llada_loop import llada_loop
from diffutron.testing.oracles import slow_masked_nll
from diffutron.testing.table import TableDenoiser, TableReader
from diffutron.testing.tiny import (
    PLAIN_CORPUS,
    TINY_TEXTS,
    tiny_codec,
    tiny_config,
    tiny_denoiser,
    tiny_folder,
    tiny_tokenizer,
)

__all__ = [
    "PLAIN_CORPUS", "TINY_TEXTS", "TableDenoiser", "TableReader", "llada_loop", "slow_masked_nll", "tiny_codec",
    "tiny_config", "tiny_denoiser", "tiny_folder", "tiny_tokenizer",
]  # fmt: skip
