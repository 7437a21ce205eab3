"""What a run is measured by while it trains: its own held-out part, and texts from the same prompts."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from typing import Any

from diffutron.corpus import read_texts
from diffutron.corpus.read import read_all
from diffutron.errors import DataError
from diffutron.evaluation.hiding import AtRate
from diffutron.evaluation.perplexity import perplexity_of
from diffutron.evaluation.questions import TextQuestions, ask_for_rows, ask_for_texts, window_tokens
from diffutron.generation import Generator, Request, SamplerSettings
from diffutron.tokens.rows import Rows
from diffutron.training.run import Run, diffusion_config

log = logging.getLogger(__name__)

PROMPTS = ("", "Bir varmış bir yokmuş", "Türkiye'nin")
SAMPLE_TOKENS = 48


def evaluation_of(run: Run, *, max_texts: int | None = None) -> Callable[[], dict[str, Any]]:
    """What is measured beside the loop: masked perplexity of the held-out part, if there is one, and samples.

    At 15 % for texts, in windows as long as the rows of the training; at 50 % for the answers of conversations, which
    are short. Every worker computes the same; a sharded model needs them all.

    Args:
        max_texts: how many held-out texts at most.
    """
    denoiser, codec = run.loaded.denoiser, run.codec
    read, hiding = _heldout_questions(run, max_texts)
    learned_end = diffusion_config(run)["learned_end"]
    requests = []
    for prompt in PROMPTS:
        room = denoiser.max_positions - 1 - len(codec.encode(prompt))
        if room > 0:
            requests.append(Request(prompt, min(SAMPLE_TOKENS, room)))

    def evaluate() -> dict[str, Any]:
        scores: dict[str, Any] = {}
        if read is not None:
            try:
                scores = perplexity_of(denoiser, codec, read, hiding).as_dict()
            except DataError as error:  # no reason to lose what was trained
                log.warning("the held-out part was not measured: %s", error)
        generator = Generator(denoiser, codec, learned_end=learned_end)  # a reader is of the weights as they were
        samples = generator.complete(requests, SamplerSettings())
        return {**scores, "samples": [sample.as_dict() for sample in samples]}

    return evaluate


def _heldout_questions(run: Run, max_texts: int | None) -> tuple[TextQuestions | None, AtRate]:
    maker, file, max_tokens = run.row_maker, run.corpus.heldout, run.recipe.data.max_tokens
    hiding = AtRate(0.15 if maker.chat is None else 0.5)
    if not run.corpus.report["heldout"]:
        return None, hiding
    if maker.chat is not None:
        made = list(maker.make(itertools.islice(read_all(file), max_texts)))
        return ask_for_rows(Rows.of(made, marked=True), run.codec) if made else None, hiding
    texts = itertools.islice(read_texts(file), max_texts)
    return ask_for_texts(texts, run.codec, max_tokens=min(max_tokens, window_tokens(run.loaded.denoiser))), hiding
