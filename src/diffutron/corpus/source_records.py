"""The records of a source, from files or from the hub, and which of them are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from diffutron.corpus.plan import Task
from diffutron.corpus.read import OnFault, Place, read_records
from diffutron.corpus.settings import SourceSettings, Value
from diffutron.errors import DataError


def records_of(
    source: SourceSettings, task: Task, on_fault: OnFault, place: Place
) -> Iterator[tuple[str, dict[str, Any]]]:
    if task.file is not None:
        return read_records(task.file, on_fault, task.stripe, place)
    return _hub_records(source)


def _hub_records(source: SourceSettings) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        from datasets.load import load_dataset
    except ImportError:
        raise DataError("reading from the hub needs: pip install 'diffutron[data]'") from None
    assert source.hub is not None
    try:
        rows = load_dataset(source.hub, source.config, split=source.split, revision=source.revision, streaming=True)
        for number, row in enumerate(rows, start=1):
            yield f"{source.hub}:{number}", dict(row)
    except Exception as error:  # datasets raises a dozen kinds, from httpx's to its own
        line = " ".join(str(error).split())[:160]
        raise DataError(f"data set {source.hub} cannot be read from the hub: {line}") from None


def share_of_records(source: SourceSettings, task: Task) -> int | None:
    """How many of a file's first ``max_records`` are in the task's stripe."""
    if source.max_records is None:
        return None
    return sum(task.stripe.holds(number) for number in range(1, source.max_records + 1))


def is_asked_for(record: dict[str, Any], source: SourceSettings) -> bool:
    def is_one_of(key: str, values: list[Value]) -> bool:
        return _spelled(record.get(key)) in map(_spelled, values)

    return all(is_one_of(*each) for each in source.where.items()) and not any(
        is_one_of(*each) for each in source.exclude.items()
    )


def _spelled(value: Any) -> str | None:
    """As a text: 1, 1.0 and "1" are the same, true and "true", but not 1 and true; None for what is no single value."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, str | int | float) else None
