"""Linear probes: how much a linear model can read out of a frozen encoder, and so what further training did to it.

A text's vector is the mean of the encoder's last hidden states over its tokens, without special tokens. Whatever is
learned on top is linear and small, so that what it knows is what the vectors hold.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from diffutron.corpus import Fault, files_of, read_records
from diffutron.corpus.read import warn_of_fault
from diffutron.errors import DataError, InputError
from diffutron.evaluation.linear import Linear, correlation_of, fit_ridge, fit_softmax, ranks_of, spearman
from diffutron.evaluation.questions import window_tokens
from diffutron.evaluation.score import (
    PERMUTATIONS,
    Difference,
    bootstrap,
    paired_difference,
    rate_interval,
)
from diffutron.model import Denoiser
from diffutron.model.attention import Segments
from diffutron.text import normalise
from diffutron.tokens.codec import TextCodec
from diffutron.tokens.rows import micro_batches, windows

PENALTIES = (1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)
"""What is tried for L2; features are standardised and losses are means, so that one grid fits every data set."""
TUNING_SHARE = 0.2
MIN_TRAIN = 10

Target = TypeVar("Target", str, float)


@dataclass(frozen=True)
class Examples(Generic[Target]):
    """Texts, or pairs of texts, each with its label or its score.

    Attributes:
        sides: the texts; or the first texts of the pairs and the second ones.
    """

    sides: tuple[list[str], ...]
    targets: list[Target]

    def __len__(self) -> int:
        return len(self.targets)


def read_examples(
    path: Path | str, *, texts: Sequence[str], target: str, kind: Callable[[Any], Target]
) -> Examples[Target]:
    """Records as examples; those that lack a field, or whose text is blank, are left out with a warning.

    Args:
        texts: the field of the text, or the two of a pair.
        target: the field of the label or the score, which ``kind`` turns into what it is to be.

    Raises:
        DataError: no record is left.
    """
    sides: tuple[list[str], ...] = tuple([] for _ in texts)
    targets: list[Target] = []
    for file in files_of(path):
        for place, record in read_records(file):
            found = [record.get(name) for name in texts]
            if not all(isinstance(each, str) and normalise(each) for each in found):
                warn_of_fault(Fault(place, f"has no text in the field {' or '.join(map(repr, texts))}"))
                continue
            try:
                learned = None if record.get(target) is None else kind(record[target])
            except (TypeError, ValueError):
                learned = None
            if learned is None:
                warn_of_fault(Fault(place, f"has nothing to learn in the field {target!r}"))
                continue
            targets.append(learned)
            for side, text in zip(sides, found, strict=True):
                side.append(str(text))
    if not targets:
        raise DataError(f"{path}: no record has the fields {', '.join(map(repr, [*texts, target]))}")
    return Examples(sides, targets)


def finite(value: Any) -> float:
    """A score.

    Raises:
        TypeError, ValueError: it is no number, or no finite one.
    """
    if not math.isfinite(number := float(value)):
        raise ValueError(f"{number} is no score")
    return number


@dataclass(frozen=True)
class Accuracy:
    """How often a softmax regression on frozen vectors is right.

    Attributes:
        value: on the test part; ``low`` and ``high`` bound its 95 % interval over examples.
        chance: of a guess among the classes.
        majority: of always giving the label that is most frequent in the training part.
        penalty: the L2 that a fifth of the training part chose.
        fingerprint: 16 digits that change with any example of either part.
        is_right: of each test example, for comparisons.
    """

    value: float
    low: float
    high: float
    chance: float
    majority: float
    penalty: float
    num_classes: int
    num_train: int
    num_test: int
    seed: int
    fingerprint: str
    is_right: NDArray[np.float64] = field(repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "is_right"}


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of what a model says with the gold scores.

    Attributes:
        value: on the test part; ``low`` and ``high`` bound its 95 % interval over examples.
        penalty: the L2 that a fifth of the training part chose; None if nothing was trained.
        predictions, gold: of each test example, for comparisons.
    """

    value: float
    low: float
    high: float
    penalty: float | None
    num_train: int
    num_test: int
    seed: int
    fingerprint: str
    predictions: NDArray[np.float64] = field(repr=False, compare=False)
    gold: NDArray[np.float64] = field(repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name not in ("predictions", "gold")}


def probe_labels(
    denoiser: Denoiser, codec: TextCodec, train: Examples[str], test: Examples[str], *, seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Accuracy:  # fmt: skip
    """Learn to tell labels from vectors: u of a text; u, v, |u - v| and u * v of a pair.

    Raises:
        DataError: too little to learn from, a single label, or a label that only the test part has.
    """
    _check_size(train)
    names = sorted(set(train.targets))
    if len(names) < 2:
        raise DataError(f"every training example has the label {names[0]!r}; there is nothing to tell apart")
    if strange := sorted(set(test.targets) - set(names)):
        raise DataError(f"the label {strange[0]!r} of the test part is not in the training part")
    learned, asked = (np.asarray([names.index(each) for each in part.targets]) for part in (train, test))
    seen, new = (
        sides[0] if len(sides) == 1 else np.concatenate([*sides, _relation(*sides)], axis=1)
        for sides in _encode(denoiser, codec, (train, test), on_progress)
    )

    def fit(features: NDArray[np.float64], labels: NDArray[np.int64], penalty: float) -> Linear:
        return fit_softmax(features, labels, len(names), penalty=penalty)

    model, penalty = _tuned(fit, _cross_entropy, seen, learned, seed=seed)
    is_right = (model(new).argmax(axis=1) == asked).astype(float)
    low, high = rate_interval(is_right, np.ones_like(is_right), seed=seed)
    return Accuracy(
        value=float(is_right.mean()), low=low, high=high, chance=1 / len(names),
        majority=float((asked == np.bincount(learned).argmax()).mean()), penalty=penalty, num_classes=len(names),
        num_train=len(train), num_test=len(test), seed=seed, fingerprint=_fingerprint(train, test), is_right=is_right,
    )  # fmt: skip


def probe_similarity(
    denoiser: Denoiser, codec: TextCodec, train: Examples[float], test: Examples[float], *, seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Correlation, Correlation]:  # fmt: skip
    """How well pairs are ordered by the cosine of their vectors, which nothing trained; and by a ridge regression on
    |u - v| and u * v that the training part taught.

    Raises:
        DataError: too little to learn from, or test scores that are all equal.
    """
    _check_size(train)
    learned, gold = (np.asarray(part.targets, dtype=float) for part in (train, test))
    if np.ptp(gold) == 0:
        raise DataError(f"every test example has the score {gold[0]}; there is no order to find")
    before, (u, v) = _encode(denoiser, codec, (train, test), on_progress)
    model, penalty = _tuned(fit_ridge, _squared_error, _relation(*before), learned, seed=seed)
    # The smallest normal number: a vector of zeros points nowhere, and is similar to nothing.
    lengths = np.maximum(np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1), np.finfo(float).tiny)
    fingerprint = _fingerprint(train, test)

    def correlation(predictions: NDArray[np.float64], penalty: float | None) -> Correlation:
        low, high = bootstrap(lambda picked: spearman(predictions[picked], gold[picked]), len(gold), seed=seed)
        return Correlation(
            spearman(predictions, gold), low, high, penalty, len(train), len(test), seed, fingerprint, predictions, gold
        )

    return correlation((u * v).sum(axis=1) / lengths, None), correlation(model(_relation(u, v))[:, 0], penalty)


def compare_accuracies(before: Accuracy, after: Accuracy) -> Difference:
    """How much more often ``after`` is right, on the same examples.

    Raises:
        InputError: the two were not asked the same.
    """
    _check_same(before, after)
    return paired_difference(before.is_right, after.is_right, np.ones_like(before.is_right), seed=before.seed)


def compare_correlations(before: Correlation, after: Correlation) -> Difference:
    """How far the correlation of ``after`` is above that of ``before``, on the same examples.

    The p-value is that of a two-sided permutation test: if the two are alike, each example's two ranks may be swapped.
    Ranks, because the cosines of two encoders lie on different scales. It is never below 1 / 10,001.

    Raises:
        InputError: the two were not asked the same.
    """
    _check_same(before, after)
    size, seed = len(before.gold), before.seed
    gold, one, other = (ranks_of(values) for values in (before.gold, before.predictions, after.predictions))

    def above(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
        return correlation_of(ranks_of(other), gold) - correlation_of(ranks_of(one), gold)

    found = above(one, other)
    low, high = bootstrap(
        lambda picked: spearman(other[picked], gold[picked]) - spearman(one[picked], gold[picked]), size, seed=seed
    )
    generator = np.random.Generator(np.random.Philox(seed))
    as_far = 0
    for _ in range(PERMUTATIONS):
        swap = generator.integers(0, 2, size).astype(bool)
        as_far += abs(above(np.where(swap, other, one), np.where(swap, one, other))) >= abs(found) - 1e-12
    return Difference(found, low, high, (as_far + 1) / (PERMUTATIONS + 1))


def sentence_vectors(
    denoiser: Denoiser, codec: TextCodec, texts: Sequence[str], *, micro_batch_tokens: int = 4096,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> NDArray[np.float64]:  # fmt: skip
    """A vector a text: the mean over its tokens, in all its windows of 512 if it is long.

    A text's vector depends on nothing but the text.

    Args:
        on_progress: is told how many windows are read, and of how many.

    Raises:
        DataError: a text holds no token.
    """
    rows: list[NDArray[np.int64]] = []
    owners: list[int] = []
    for owner, ids in enumerate(codec.encode_batch(texts)):
        if not ids:
            raise DataError(f"the text {texts[owner]!r} holds no token")
        for row in windows(ids, codec, window_tokens(denoiser)):
            rows.append(np.asarray(row, dtype=np.int64))
            owners.append(owner)
    sums, counts = np.zeros((len(texts), denoiser.model.config.hidden_size)), np.zeros((len(texts), 1))
    lengths = np.asarray([len(row) for row in rows])
    done = 0
    for batch in micro_batches(np.arange(len(rows)), lengths, max_tokens=micro_batch_tokens):
        borders = np.cumsum(lengths[batch])[:-1]
        states = _last_hidden_states(denoiser, [rows[index] for index in batch])
        for index, state in zip(batch, np.split(states, borders), strict=True):
            is_text = ~np.isin(rows[index], (codec.start_id, codec.end_id))
            sums[owners[index]] += state[is_text].sum(axis=0)
            counts[owners[index]] += is_text.sum()
        done += len(batch)
        on_progress(done, len(rows))
    return sums / counts


@torch.inference_mode()
def _last_hidden_states(denoiser: Denoiser, rows: list[NDArray[np.int64]]) -> NDArray[np.float64]:
    """Of rows end to end, in float64."""
    device, segments = next(denoiser.parameters()).device, Segments(tuple(map(len, rows)))
    states = denoiser.hidden_states(torch.from_numpy(np.concatenate(rows))[None].to(device), segments=segments)
    return states[0].double().cpu().numpy()


def _tuned(
    fit: Callable[[NDArray[np.float64], NDArray[Any], float], Linear],
    loss: Callable[[NDArray[np.float64], NDArray[Any]], float],
    features: NDArray[np.float64], targets: NDArray[Any], *, seed: int,
) -> tuple[Linear, float]:  # fmt: skip
    """Choose the penalty on a fifth of the examples, learning from the others; then learn from all."""
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(targets))
    tuning, rest = np.split(order, [round(TUNING_SHARE * len(order))])

    def held_out(penalty: float) -> float:
        return loss(fit(features[rest], targets[rest], penalty)(features[tuning]), targets[tuning])

    penalty = min(PENALTIES, key=held_out)
    return fit(features, targets, penalty), penalty


def _cross_entropy(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    return float(F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)))


def _squared_error(outputs: NDArray[np.float64], targets: NDArray[np.float64]) -> float:
    return float(np.mean((outputs[:, 0] - targets) ** 2))


def _relation(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([np.abs(u - v), u * v], axis=1)


def _encode(
    denoiser: Denoiser, codec: TextCodec, parts: Sequence[Examples[Any]], on_progress: Callable[[int, int], None]
) -> list[list[NDArray[np.float64]]]:
    """For each part, the vectors of each of its sides; a text that stands twice is read once."""
    texts = list(dict.fromkeys(text for part in parts for side in part.sides for text in side))
    vectors = sentence_vectors(denoiser, codec, texts, on_progress=on_progress)
    places = {text: place for place, text in enumerate(texts)}
    return [[vectors[[places[text] for text in side]] for side in part.sides] for part in parts]


def _check_size(train: Examples[Any]) -> None:
    if len(train) < MIN_TRAIN:
        raise DataError(f"{len(train)} training examples are too few to learn from; give at least {MIN_TRAIN}")


def _check_same(before: Accuracy | Correlation, after: Accuracy | Correlation) -> None:
    for name in ("fingerprint", "seed"):
        one, other = getattr(before, name), getattr(after, name)
        if one != other:
            raise InputError(f"probes are comparable on the same examples only: {name} is {one} and {other}")


def _fingerprint(*parts: Examples[Any]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(json.dumps([part.sides, part.targets]).encode("utf-8"))
    return digest.hexdigest()[:16]
