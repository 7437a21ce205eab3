"""Multiple-choice tasks of lm-eval, and what their scores are worth."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lm_eval.api.task
import lm_eval.tasks
import numpy as np
from datasets.arrow_dataset import Dataset
from datasets.utils.tqdm import disable_progress_bars, enable_progress_bars
from lm_eval.evaluator import evaluate
from lm_eval.tasks._index import Kind

from diffutron.corpus import files_of, read_records
from diffutron.errors import DataError, DiffutronError, InputError
from diffutron.evaluation.cetvel.documents import BAD_KEY
from diffutron.evaluation.harness import Estimate, HarnessModel
from diffutron.evaluation.score import wilson_interval

CETVEL = ("belebele_tr", "exams_tr", "ironytr", "news_cat", "mnli_tr", "sts_tr", "xcopa_tr")

BROKEN = {"exams_tr": BAD_KEY}
"""the label of documents that are broken in the data itself, and count as answered wrong, as CETVEL does it"""
METRICS = ("acc", "acc_norm")
ONE_ANSWER = 0.95
"""more of one answer than this is worth a word"""

_OURS = Path(__file__).parent / "cetvel"
_TURBLIMP = Path(lm_eval.tasks.__file__).parent / "turblimp"


@dataclass(frozen=True)
class TaskScore:
    """A task's score with everything that is needed to repeat it or to doubt it.

    Attributes:
        metric: ``acc``: the choice of the highest log-likelihood is right; ``acc_norm``: of the highest a character.
        value: share of documents that are right; ``low`` and ``high`` bound its 95 % interval over documents.
        standard_error: of the value, had the task other documents and the bound other draws.
        mc_standard_error: had only the draws been others, and half as many: an upper estimate of the draws' part.
        chance: what guessing gives.
        majority: what the most frequent answer gives, or, where answers differ from document to document, the best
            place in the list. None where the right one always stands in one place, which no model is told.
        one_answer: share of documents in which the choice of the most often chosen place was chosen: 1 for a model that
            does not look at the question.
        num_cut: documents whose context lost its beginning to fit into the model's.
        fingerprint: 16 digits that change with any context, choice or answer.
    """

    task: str
    metric: str
    value: float
    standard_error: float
    low: float
    high: float
    mc_standard_error: float
    chance: float
    majority: float | None
    one_answer: float
    num_documents: int
    num_cut: int
    estimator: str
    num_draws: int
    seed: int
    fingerprint: str

    def as_dict(self) -> dict[str, float | int | str | None]:
        return {**asdict(self), "verdict": self.verdict}

    @property
    def verdict(self) -> str:
        """What the score says, in a line."""
        says = self._beside_baselines()
        # Where the right answer always stands in one place, a model that knows it gives "one answer" too.
        if self.majority is None or self.one_answer <= ONE_ANSWER:
            return says
        return f"{says}; {self.one_answer:.0%} of its answers are one and the same"

    def _beside_baselines(self) -> str:
        baselines = {"guessing": self.chance, "always answering the same": self.majority}
        known = {name: level for name, level in baselines.items() if level is not None}
        within = [name for name, level in known.items() if self.low <= level <= self.high]
        if within:
            return f"at chance: its interval holds what {' and '.join(within)} would get"
        beaten = [name for name, level in known.items() if level < self.low]
        if len(beaten) == len(known):
            return f"above {' and '.join(known)}"
        if beaten:
            return f"above {beaten[0]}, but below {next(name for name in known if name not in beaten)}"
        return f"below {' and '.join(known)}"


@dataclass(frozen=True)
class Answered:
    """One document: its choices, what the model thinks of each, and the number of the right one.

    A broken document may name a right choice that there is not.
    """

    context: str
    choices: tuple[str, ...]
    estimates: tuple[Estimate, ...]
    right: int

    def chosen(self, metric: str, half: int | None = None) -> int:
        """By all draws, or by one half of them."""
        nats = np.asarray([each.value if half is None else each.halves[half] for each in self.estimates])
        if metric == "acc_norm":
            nats = nats / np.asarray([max(len(choice), 1) for choice in self.choices])
        return int(nats.argmax())

    def is_right(self, metric: str, half: int | None = None) -> bool:
        return self.chosen(metric, half) == self.right


def _refuse(error: DataError) -> None:
    raise error


def run_tasks(
    model: HarnessModel, names: Sequence[str], *, data: Mapping[str, Path] | None = None, limit: int | None = None,
    on_missing: Callable[[DataError], None] = _refuse,
) -> list[TaskScore]:  # fmt: skip
    """Run tasks, and score them.

    Args:
        names: tasks, tags or groups: ours, ``turblimp_core``, or any of lm-eval's that lets choose.
        data: for some of the tasks, those of a tag or group among them, a file to read instead of the hub's data set.
        limit: the first so many documents of each task.
        on_missing: is told of a task that has no file and whose hub data cannot be had, while the others are scored;
            unless given, the error is raised.

    Raises:
        InputError: an unknown task, or one where there is not one right choice of several after one context.
        DataError: a task's data cannot be had, or is not what the task expects; or no task's can be had.
    """
    with _without_bars():
        tasks = _load(names, data or {}, on_missing)
        for name, task in tasks.items():
            if task.OUTPUT_TYPE != "multiple_choice" or task.multiple_input or task.multiple_target:
                raise InputError(f"task {name!r} is no choice between texts; run it by lm_eval with a HarnessModel")
            _check_documents(name, task, limit)
        found = evaluate(model, {"tasks": tasks}, limit=limit, bootstrap_iters=0)
    scores = []
    for name, task in tasks.items():
        samples = found["samples"][name]
        broken = BROKEN.get(name)
        documents = [_answered(model, task.doc_to_choice(each["doc"]), each, broken) for each in samples]
        metrics = [metric for metric in METRICS if metric in samples[0]["metrics"]]
        scores += [score_of(name, metric, documents, model) for metric in metrics]
    return scores


def _check_documents(name: str, task: Any, limit: int | None) -> None:
    """
    Raises:
        InputError: the task has no metric of ours. DataError: a document has no choices, or its label is none of them.
    """
    if not set(METRICS) & set(task._metric_fn_list):
        raise InputError(
            f"task {name!r} is not scored by {' or '.join(METRICS)}; run it by lm_eval with a HarnessModel"
        )
    for number, document in enumerate(itertools.islice(task.eval_docs, limit), 1):
        try:
            choices, label = task.doc_to_choice(document), task.doc_to_target(document)
            right = right_choice(label, choices, broken=BROKEN.get(name))
        except Exception as error:  # prompts are code of the task's
            found = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise DataError(f"task {name!r}: document {number} is not what the task expects ({found})") from error
        if right is None:
            raise DataError(f"task {name!r}: document {number} has the label {label!r}, and {len(choices)} choices")


def right_choice(label: Any, choices: Sequence[str], *, broken: int | None = None) -> int | None:
    """The number of the choice that a label names, by its text or its number; None if it names none.

    Args:
        broken: a number that marks a broken document, even where no choice has it; whatever is chosen is then wrong.
    """
    if isinstance(label, str) and label in choices:
        return choices.index(label)
    if isinstance(label, str) and label.isdecimal():
        label = int(label)
    is_number = isinstance(label, int | np.integer)
    return int(label) if is_number and (0 <= label < len(choices) or label == broken) else None


def score_of(task: str, metric: str, documents: Sequence[Answered], model: HarnessModel) -> TaskScore:
    """Score what was answered.

    The halves of the draws judge each document for themselves. Where only one of them is right, chance decided, and
    half of the squared difference estimates, without bias, the variance that half of the draws leave.
    """
    total = len(documents)
    right = np.asarray([each.is_right(metric) for each in documents], dtype=float)
    differ = np.asarray([each.is_right(metric, 0) != each.is_right(metric, 1) for each in documents], dtype=float)
    low, high = wilson_interval(int(right.sum()), total)
    told = [(each.context, each.choices, each.right) for each in documents]
    return TaskScore(
        task=task, metric=metric, value=float(right.mean()), low=low, high=high,
        standard_error=float(right.std(ddof=1)) / math.sqrt(total) if total > 1 else math.nan,
        mc_standard_error=math.sqrt(differ.sum() / 2) / total,
        chance=float(np.mean([1 / len(each.choices) for each in documents])), majority=_majority(documents),
        one_answer=max(Counter(each.chosen(metric) for each in documents).values()) / total,
        num_documents=total, num_cut=sum(any(choice.was_cut for choice in each.estimates) for each in documents),
        estimator=model.estimator, num_draws=model.num_draws, seed=model.seed,
        fingerprint=hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16],
    )  # fmt: skip


def _majority(documents: Sequence[Answered]) -> float | None:
    possible = Counter(each.right for each in documents if each.right < len(each.choices))
    most = max(possible.values(), default=0)
    answers_differ = len({each.choices for each in documents}) > 1
    return None if answers_differ and most == len(documents) else most / len(documents)


def _answered(
    model: HarnessModel, choices: Sequence[str], sample: Mapping[str, Any], broken: int | None
) -> Answered:  # fmt: skip
    right = right_choice(sample["target"], choices, broken=broken)
    assert right is not None  # as it was of all documents before any was answered
    # Metrics that need them put the choices without their context behind these.
    pairs = sample["arguments"][: len(choices)]
    return Answered(pairs[0][0], tuple(choices), tuple(model.estimate(*pair) for pair in pairs), right)


def _load(
    names: Sequence[str], data: Mapping[str, Path], on_missing: Callable[[DataError], None] = _refuse
) -> dict[str, Any]:
    """lm-eval's task objects with their documents, by name."""
    manager = lm_eval.tasks.TaskManager(include_path=[_TURBLIMP, _OURS], include_defaults=False)
    if not set(names) <= set(manager.all_tasks):  # lm-eval's whole catalogue takes half a minute to read
        manager = lm_eval.tasks.TaskManager(include_path=_OURS)
    for name in (*names, *data):
        if name not in manager.all_tasks:
            nearest = difflib.get_close_matches(name, manager.all_tasks, n=1)
            raise InputError(f"no task is called {name!r}" + (f"; did you mean {nearest[0]!r}?" if nearest else ""))
    names = list(dict.fromkeys(each for name in names for each in _opened(name, data, manager.task_index)))
    if unused := set(data) - set(names):
        raise InputError(f"there is a file for {min(unused)}, which is not among the tasks to run")
    tasks: dict[str, Any] = {}
    missing: DataError | None = None
    for name in names:
        try:
            tasks |= manager.load([_with_file(name, data[name]) if name in data else name])["tasks"]
        except DiffutronError:
            raise
        except Exception as error:  # hub, network, formats and fields each have their own kinds
            found = f"({type(error).__name__}: {' '.join(str(error).split())[:200]})"
            if name in data:
                raise DataError(f"task {name!r}: {data[name]} is not what the task expects {found}") from error
            missing = DataError(
                f"task {name!r}: its documents cannot be read {found}; --data {name}=FILE gives a file of your own"
            )
            missing.__cause__ = error
            on_missing(missing)
    if missing is not None and not tasks:
        raise missing
    return tasks


def _opened(name: str, data: Mapping[str, Path], index: Mapping[str, Any]) -> list[str]:
    """The tasks of a tag or group that holds one with a file; any other name as it is."""
    entry = index[name]
    members: Any = sorted(entry.tags) if entry.kind == Kind.TAG else []
    if entry.kind == Kind.GROUP and name not in data:
        members = (entry.cfg or {}).get("task") or []
        members = [members] if isinstance(members, str) else members
        if not all(isinstance(each, str) and each in index for each in members):
            return [name]  # it changes its tasks; they are not those that the files are for
    opened = [each for member in members for each in _opened(member, data, index)]
    return opened if set(opened) & set(data) else [name]


def _with_file(name: str, file: Path) -> dict[str, Any]:
    """A task with other data: a group around it is lm-eval's way to change what its file says."""
    records = [record for path in files_of(file) for _, record in read_records(path)]
    if not records:
        raise DataError(f"data file {file} holds no document")
    # lm-eval would ask the data set for its other splits too.
    others = dict.fromkeys(("training_split", "validation_split", "fewshot_split"))
    changes = {**others, "test_split": "test", "custom_dataset": lambda **_: {"test": Dataset.from_list(records)}}
    return {"group": "local", "task": [{"task": name, **changes}]}


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """lm-eval and datasets draw bars for what takes no time; the progress worth a line is the model's."""
    builder: Any = lm_eval.api.task
    bar, builder.tqdm = builder.tqdm, lambda documents, **_: documents
    disable_progress_bars()
    try:
        yield
    finally:
        builder.tqdm = bar
        enable_progress_bars()
