"""Which texts stay: filters in order of cost, each with one reason and the value that it measured."""

from __future__ import annotations

from diffutron.corpus.language import LanguageFilter, LanguageSettings
from diffutron.corpus.quality import (
    LineFilter,
    LineSettings,
    ValidWordFilter,
    ValidWordSettings,
    WordFilter,
    WordSettings,
)
from diffutron.corpus.repetition import RepetitionFilter, RepetitionSettings
from diffutron.corpus.spam import SpamFilter, SpamSettings
from diffutron.corpus.view import Filter, TextView

__all__ = ["Filter", "FilterSettings", "TextView", "build_filters"]


class FilterSettings(LanguageSettings, RepetitionSettings, LineSettings, WordSettings, ValidWordSettings, SpamSettings):
    """Which texts are dropped for what they are; every filter can be switched off."""


def build_filters(settings: FilterSettings) -> list[Filter]:
    """The filters that are on; the first that finds a fault spares the others the work.

    Raises:
        DataError: the dictionary that the settings name cannot be opened.
    """
    filters: list[Filter] = []
    if settings.lines:
        filters.append(LineFilter(settings))
    if settings.words:
        filters.append(WordFilter(settings))
    if settings.language:
        filters.append(LanguageFilter(settings))
    if settings.valid_words > 0:
        filters.append(ValidWordFilter(settings))
    if settings.spam:
        filters.append(SpamFilter(settings))
    if settings.repetition:
        filters.append(RepetitionFilter(settings))
    return filters
