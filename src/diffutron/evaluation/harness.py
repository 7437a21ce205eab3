"""A masked diffusion model as lm-eval's ``LM``: log-likelihoods of continuations, of whole texts, and written text.

What lm-eval's own models do wrong for an encoder is not done here: no special token stands between a context and its
continuation, none is scored, and the continuation keeps its first token.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.defaults import DEFAULT_MAX_GEN_TOKS
from lm_eval.models.utils import normalize_gen_kwargs

from diffutron.corpus.draws import text_digest
from diffutron.errors import DataError, InputError
from diffutron.evaluation.hiding import EverySet, InOrder
from diffutron.evaluation.likelihood import NUM_DRAWS, Estimator, log_likelihoods
from diffutron.evaluation.questions import Question, ask, ask_for_continuation, ask_for_texts, window_tokens
from diffutron.generation import Generator, Request, SamplerSettings
from diffutron.model import Loaded
from diffutron.text import normalise
from diffutron.tokens.codec import TextCodec

REQUESTS_AT_A_TIME = 16
"""asked together and then written down: what a killed run has to do again, at most"""
PROTOCOL = 1
"""raised by hand when the same request gets another answer: what caches hold of former ones is then asked again"""


@dataclass(frozen=True)
class Estimate:
    """Log-likelihood of a continuation, in nats.

    Attributes:
        value: minus infinity where the continuation has no token: nothing is no choice.
        standard_error: from the draws; 0 where nothing was left to chance.
        halves: the same from the first and from the second half of the draws; both ``value`` if there were none.
        was_cut: whether the context lost its beginning to fit.
    """

    value: float
    standard_error: float
    halves: tuple[float, float]
    was_cut: bool


class _Writing(NamedTuple):
    """Text to write, as the cache knows it.

    Attributes:
        sampler: settings, as JSON.
        sample: tells requests that draw apart where one call asks the same again; 0 of what nothing is drawn for.
    """

    context: str
    max_new_tokens: int
    sampler: str
    until: tuple[str, ...]
    sample: int


class RequestCache:
    """Answers by request, in a JSONL file that grows: what was written before a kill is there after it.

    Args:
        file: None keeps the answers in memory only.

    Raises:
        DataError: the file is not one of these.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self._answers: dict[str, Any] = {}
        if file is None or not file.exists():
            return
        content = file.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                entry = json.loads(line)
            except ValueError:
                entry = None
            if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)):
                raise DataError(f"{file}:{number} is no cached answer; remove the file to ask again")
            self._answers[entry[0]] = entry[1]
        if len(whole) < len(content):  # a kill broke the last line
            file.write_bytes(whole)

    def __contains__(self, key: str) -> bool:
        return key in self._answers

    def __getitem__(self, key: str) -> Any:
        return self._answers[key]

    def add(self, answers: dict[str, Any]) -> None:
        self._answers |= answers
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("a", encoding="utf-8") as stream:
                # Minus infinity, which JSON has not, must come back as itself; nobody else reads this file.
                stream.writelines(json.dumps(each, ensure_ascii=False) + "\n" for each in answers.items())


class HarnessModel(LM):
    """Give it to ``lm_eval.simple_evaluate(model=…)``, or to :func:`~diffutron.evaluation.tasks.run_tasks`.

    Args:
        estimator, num_draws: see :func:`~diffutron.evaluation.log_likelihoods`; the draws are made in two halves, so
            their number is a multiple of 4.
        cache: what was asked before, of any model.
        on_progress: is told how many requests are answered, of how many that no cache knows.

    Raises:
        InputError: another number of draws.
    """

    def __init__(
        self, loaded: Loaded, *, estimator: Estimator = "bound", num_draws: int = NUM_DRAWS, seed: int = 0,
        cache: RequestCache | None = None, on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:  # fmt: skip
        super().__init__()
        if num_draws < 4 or num_draws % 4:
            raise InputError(f"the number of draws must be a multiple of 4, not {num_draws}")
        self.denoiser, self.codec = loaded.denoiser, TextCodec(loaded.tokenizer)
        self.estimator, self.num_draws, self.seed = estimator, num_draws, seed
        self.cache = cache or RequestCache()
        self.on_progress = on_progress
        self._generator = Generator.of(loaded, self.codec)
        self._fingerprint = _fingerprint(loaded, self.codec)

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Of each continuation, and whether writing greedily from left to right would give it.

        The second is found out only for a document that asks for one continuation (LAMBADA's way); between choices
        nobody asks, and it is False.
        """
        pairs = [(str(context), str(continuation)) for context, continuation in (each.args for each in requests)]
        self._answer("loglikelihood", pairs, self._estimates)
        siblings = Counter((each.task_name, each.doc_id) for each in requests)
        alone = [siblings[each.task_name, each.doc_id] == 1 for each in requests]
        greedy = iter(self._are_greedy([pair for pair, is_alone in zip(pairs, alone, strict=True) if is_alone]))
        return [
            (self.estimate(*pair).value, is_alone and next(greedy)) for pair, is_alone in zip(pairs, alone, strict=True)
        ]

    def estimate(self, context: str, continuation: str) -> Estimate:
        """What :meth:`loglikelihood` found, with its uncertainty."""
        found = self.cache[self._key("loglikelihood", (context, continuation))]
        return Estimate(**{**found, "halves": tuple(found["halves"])})

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Of each text; windows of 512 tokens (fewer if the model's context is shorter) are read for themselves."""
        texts = [(str(each.args[0]),) for each in requests]
        self._answer("rolling", texts, lambda batch: [self._rolling(*text) for text in batch])
        return [float(self.cache[self._key("rolling", text)]) for text in texts]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Written with the sampler's settings, but greedily unless a task draws; up to half of the model's context.

        A request that draws and is asked several times (lm-eval's ``repeats``) gets a sample each time.
        """
        asked = list[_Writing]()
        times: defaultdict[_Writing, int] = defaultdict(int)
        for each in requests:
            writing = self._writing(*each.args)
            asked.append(writing._replace(sample=times[writing]))
            times[writing] += SamplerSettings.model_validate_json(writing.sampler).temperature > 0
        self._answer("generate", asked, lambda batch: [self._continuation(each) for each in batch])
        return [str(self.cache[self._key("generate", each)]) for each in asked]

    def _answer(self, kind: str, requests: Sequence[Any], answers: Callable[[list[Any]], list[Any]]) -> None:
        """Ask what the cache does not know, and let it know."""
        missing = [each for each in dict.fromkeys(requests) if self._key(kind, each) not in self.cache]
        for start in range(0, len(missing), REQUESTS_AT_A_TIME):
            batch = missing[start : start + REQUESTS_AT_A_TIME]
            keys = [self._key(kind, each) for each in batch]
            self.cache.add(dict(zip(keys, answers(batch), strict=True)))
            self.on_progress(start + len(batch), len(missing))

    def _key(self, kind: str, request: Sequence[Any]) -> str:
        told = [PROTOCOL, self._fingerprint, self.estimator, self.num_draws, self.seed, kind, *request]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]

    def _estimates(self, pairs: list[tuple[str, str]]) -> list[dict[str, Any]]:
        questions, were_cut = zip(*(self._question(*pair) for pair in pairs), strict=True)
        once = [each for each in questions if not self._is_drawn(each)]
        twice = [replace(each, key=(*each.key, half)) for each in questions if self._is_drawn(each) for half in (0, 1)]
        answers, halves = (
            iter(log_likelihoods(
                self.denoiser, self.codec, asked, estimator=self.estimator, num_draws=num_draws, seed=self.seed
            ))
            for asked, num_draws in ((once, self.num_draws), (twice, self.num_draws // 2))
        )  # fmt: skip
        found = []
        for question, was_cut in zip(questions, were_cut, strict=True):
            first, second = (next(halves), next(halves)) if self._is_drawn(question) else (next(answers),) * 2
            if not question.num_asked:
                first = second = replace(first, value=-math.inf)
            found.append(asdict(Estimate(
                value=(first.value + second.value) / 2, halves=(first.value, second.value), was_cut=was_cut,
                standard_error=math.hypot(first.standard_error, second.standard_error) / 2,
            )))  # fmt: skip
        return found

    def _is_drawn(self, question: Question) -> bool:
        return self.estimator == "bound" and EverySet.num_looks(question) > self.num_draws

    def _question(self, context: str, continuation: str) -> tuple[Question, bool]:
        """A context that is too long loses its beginning, and the second tells; a continuation loses nothing."""
        before, after = self.codec.encode_pair(context, continuation)
        too_many = max(0, len(before) + len(after) + 2 - self.denoiser.max_positions)
        # The key is that of the whole context, so that choices of one question are hidden alike, however long.
        key = (text_digest(normalise(context)),)
        return ask_for_continuation(before[too_many:], after, self.codec, key=key), too_many > 0

    def _are_greedy(self, pairs: list[tuple[str, str]]) -> list[bool]:
        questions = [self._question(*pair)[0] for pair in pairs]
        greedy = [question.num_asked > 0 for question in questions]
        for answer in ask(self.denoiser, self.codec, questions, InOrder(), seed=self.seed):
            greedy[answer.question] &= bool(answer.is_top1.all())
        return greedy

    def _rolling(self, text: str) -> float:
        if not self.codec.encode(text):
            return 0.0
        asked = ask_for_texts([text], self.codec, max_tokens=window_tokens(self.denoiser))
        found = log_likelihoods(
            self.denoiser, self.codec, asked.questions, estimator=self.estimator, num_draws=self.num_draws,
            seed=self.seed,
        )  # fmt: skip
        return sum(each.value for each in found)

    def _writing(self, context: str, settings: dict[str, Any]) -> _Writing:
        wanted = normalize_gen_kwargs(settings, DEFAULT_MAX_GEN_TOKS)
        temperature = float(wanted.get("temperature") or 0.0) if wanted["do_sample"] else 0.0
        return _Writing(
            str(context), min(wanted["max_gen_toks"], self.denoiser.max_positions // 2),
            SamplerSettings(temperature=temperature).model_dump_json(),
            tuple(stop for stop in wanted["until"] if stop), 0,
        )  # fmt: skip

    def _continuation(self, asked: _Writing) -> str:
        room = self.denoiser.max_positions - 1 - asked.max_new_tokens
        # Ids, not text: a beginning that is cut and read again may have a token more.
        given = (self.codec.start_id, *self.codec.encode_beginning(asked.context)[-room:])
        [written] = self._generator.complete(
            [Request(asked.context, asked.max_new_tokens, self.seed, asked.sample, given=given)],
            SamplerSettings.model_validate_json(asked.sampler),
        )
        places = [written.completion.find(stop) for stop in asked.until if stop in written.completion]
        return written.completion[: min(places, default=None)]


def _fingerprint(loaded: Loaded, codec: TextCodec) -> str:
    """16 digits that change with any weight, any piece, and whatever else says how they are read."""
    config = loaded.denoiser.model.config.to_dict()
    for name in ("_name_or_path", "transformers_version", "architectures"):  # where it lies, and who wrote it
        config.pop(name, None)
    digest = hashlib.sha256(codec.fingerprint.encode())
    ids = [codec.start_id, codec.end_id, codec.mask_id]
    digest.update(json.dumps([config, ids, loaded.diffusion], sort_keys=True, default=str).encode())
    for name, weights in loaded.denoiser.state_dict().items():
        digest.update(name.encode())
        # Bytes: numpy has no bfloat16.
        digest.update(weights.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
