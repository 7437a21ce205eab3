"""What a task file cannot say in a template: fields of two spellings, Turkish case, data that no hub holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from diffutron.errors import DataError
from diffutron.text import lower_tr

if TYPE_CHECKING:
    from datasets.arrow_dataset import Dataset

Document = Mapping[str, Any]

NLI_LABELS = ("entailment", "neutral", "contradiction")
NEWS_LABELS = ("sport", "magazine", "politics", "health", "economy")
BAD_KEY = 3
"""CETVEL's answer where a row of EXAMS names no choice of its own"""


def exams_stem(document: Document) -> str:
    return str(_question(document)["stem"])


def exams_choices(document: Document) -> list[str]:
    return _columns(document)["text"]


def exams_answer(document: Document) -> int:
    labels, key = _columns(document)["label"], document["answerKey"].strip()
    return labels.index(key) if key in labels else BAD_KEY


def _question(document: Document) -> Document:
    """The hub nests the question, the files of the EXAMS project do not."""
    question: Document = document.get("question") or document
    return question


def _columns(document: Document) -> dict[str, list[str]]:
    choices = _question(document)["choices"]
    if isinstance(choices, Mapping):
        return {name: list(choices[name]) for name in ("text", "label")}
    return {name: [choice[name] for choice in choices] for name in ("text", "label")}


def labelled(documents: Dataset) -> Dataset:
    """Those that the annotators agreed on: MultiNLI marks the others with -1, or a hyphen, and nobody scores them."""
    kept: Dataset = documents.filter(lambda document: document["label"] not in (-1, "-"))
    return kept


def mnli_label(document: Document) -> int:
    return _index(document["label"], NLI_LABELS)


def news_label(document: Document) -> int:
    return _index(document["label"], NEWS_LABELS)


def _index(label: int | str, names: tuple[str, ...]) -> int:
    if isinstance(label, int) and 0 <= label < len(names):
        return label
    if label not in names:
        raise DataError(f"a document has the label {label!r}; known are {', '.join(names)}")
    return names.index(str(label))


def sts_grade(document: Document) -> int:
    """A score between 0 and 5, rounded; halves to the even grade, as CETVEL's template does."""
    return round(float(document["score"]))


def xcopa_premise(document: Document) -> str:
    connector = {"cause": "çünkü", "effect": "bu yüzden"}[document["question"]]
    return f"{document['premise'].strip().removesuffix('.')} {connector}"


def xcopa_choices(document: Document) -> list[str]:
    """The two alternatives as the second half of a sentence: Işık becomes ışık, İnsan insan."""
    choices = (document["choice1"], document["choice2"])
    return [lower_tr(choice[:1]) + choice[1:] for choice in choices]


def turkmorfbench(**_: Any) -> dict[str, Any]:
    """The core set that comes inside the package: a stem, and its right inflection among wrong ones.

    Raises:
        DataError: the package is not installed.
    """
    from datasets.arrow_dataset import Dataset

    try:
        from turkmorfbench.veri import yukle
    except ImportError:
        raise DataError("turkmorfbench's data is in its package; pip install turkmorfbench") from None
    fields = ("govde", "secenek", "altin_sira", "kova", "gercek")
    return {"test": Dataset.from_list([{name: item[name] for name in fields} for item in yukle("cekirdek")])}
