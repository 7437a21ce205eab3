"""Constraints on text as finite automata over characters: what can be said so can be kept in any order of filling."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import NDArray

from diffutron.errors import InputError

MAX_STATES = 4000
_DEAD = 0


@dataclass(frozen=True)
class Automaton:
    """Which texts are accepted; state 0 accepts none and is never left.

    Attributes:
        alphabet: the characters there are, each once.
        classes: for each character its column in ``table``; characters that never differ share one.
        table: the state after each state and column.
        accepts: for each state whether a text may end in it.
        start: the state before the first character.
    """

    alphabet: tuple[str, ...]
    classes: Int[NDArray[np.int32], " A"]
    table: Int[NDArray[np.int32], "S C"]
    accepts: Bool[NDArray[np.bool_], " S"]
    start: int

    @property
    def is_empty(self) -> bool:
        return self.start == _DEAD

    def __contains__(self, text: str) -> bool:
        columns = {char: int(column) for char, column in zip(self.alphabet, self.classes, strict=True)}
        state = self.start
        for char in text:
            state = int(self.table[state, columns[char]]) if char in columns else _DEAD
        return bool(self.accepts[state])

    def __and__(self, other: Automaton) -> Automaton:
        """Texts that both accept.

        Raises:
            InputError: the product has too many states.
        """
        pairs, classes = np.unique(np.stack([self.classes, other.classes]), axis=1, return_inverse=True)
        left, right = self.table[:, pairs[0]], other.table[:, pairs[1]]
        numbers = {(self.start, other.start): 1}
        todo, rows = [(self.start, other.start)], list[list[int]]()
        for first, second in todo:  # grows while it is read
            row = list[int]()
            for pair in zip(left[first].tolist(), right[second].tolist(), strict=True):
                if _DEAD in pair:
                    row.append(_DEAD)
                    continue
                if pair not in numbers:
                    numbers[pair] = len(numbers) + 1
                    todo.append(pair)
                row.append(numbers[pair])
            rows.append(row)
            if len(rows) > MAX_STATES:
                raise InputError("the constraints together are too large to be kept; give fewer or shorter ones")
        table = np.array([[_DEAD] * pairs.shape[1], *rows], dtype=np.int32)
        accepts = np.array([False, *(self.accepts[first] and other.accepts[second] for first, second in todo)])
        return smallest(Automaton(self.alphabet, classes.astype(np.int32).reshape(-1), table, accepts, 1))

    def with_soft_spaces(self) -> Automaton:
        """The same, but for a space that may stand at the beginning and after every newline: many tokenizers mark the
        beginning of a word there too, and nobody sees it."""
        size = len(self.table)
        marks = {char: self.alphabet.index(char) for char in (" ", "\n") if char in self.alphabet}
        if " " not in marks:
            return self
        # A column of its own for either character, then states twice: the second time, one space changes nothing.
        classes, table = self.classes.copy(), self.table
        for place in marks.values():
            table = np.concatenate([table, self.table[:, [self.classes[place]]]], axis=1)
            classes[place] = table.shape[1] - 1
        again = table.copy()
        again[:, classes[marks[" "]]] = np.arange(size)
        whole = np.concatenate([table, again])
        if "\n" in marks:
            column = whole[:, classes[marks["\n"]]]
            whole[:, classes[marks["\n"]]] = np.where(column == _DEAD, _DEAD, column + size)
        whole[size] = _DEAD
        accepts = np.concatenate([self.accepts, self.accepts])
        return smallest(Automaton(self.alphabet, classes, whole, accepts, self.start + size))


def smallest(given: Automaton) -> Automaton:
    """The automaton with the fewest states and columns that accepts the same."""
    table, column_of = merged_columns(given.table)  # first of all: characters are many, and most of them alike
    distance = _distances(table, given.accepts)
    table = np.where(distance[table] >= 0, table, _DEAD)
    rows, table = _renumbered(table, _merged_states(table, distance), given.start)
    table, narrower = merged_columns(table)
    classes = narrower[column_of[given.classes]]
    return Automaton(given.alphabet, classes, table, given.accepts[rows], 1 if len(rows) > 1 else _DEAD)


def merged_columns(table: Int[NDArray[np.int32], "S C"]) -> tuple[Int[NDArray[np.int32], "S D"], NDArray[np.int32]]:
    """The columns that differ, and for each column which of them it is."""
    places = dict[bytes, int]()
    # np.unique compares number by number, which takes minutes where this takes a second.
    found = [places.setdefault(column.tobytes(), len(places)) for column in np.ascontiguousarray(table.T)]
    _, first = np.unique(found, return_index=True)
    return table[:, first], np.array(found, dtype=np.int32)


def _distances(table: Int[NDArray[np.int32], "S C"], accepts: Bool[NDArray[np.bool_], " S"]) -> NDArray[np.int64]:
    """How many characters each state is away from an accepted text; -1 if nothing can be accepted any more."""
    distance, steps = np.where(accepts, 0, -1), 0
    while True:
        steps += 1
        reached = (distance < 0) & (distance[table] >= 0).any(axis=1)
        if not reached.any():
            return distance
        distance[reached] = steps


def _merged_states(table: Int[NDArray[np.int32], "S C"], distance: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each state the number of its group; states share one if the same texts are accepted after them.

    Moore's refinement: they stay together while their successors do. To begin with the distance, and not only with
    whether a text may end, saves a round for each of a long text's characters.
    """
    size = len(table)
    _, group = np.unique(distance, return_inverse=True)
    while True:
        before = group.max()
        for column in table.T:
            _, group = np.unique(group * size + group[column], return_inverse=True)
        if group.max() == before:
            return group


def _renumbered(
    table: Int[NDArray[np.int32], "S C"], group: NDArray[np.int64], start: int
) -> tuple[list[int], Int[NDArray[np.int32], "G C"]]:
    """A state of each group that can be reached, and the table of the groups: the dead state first, then in the order
    in which they are reached."""
    leaders = {int(number): place for place, number in reversed(list(enumerate(group)))}
    numbers, todo = {int(group[_DEAD]): _DEAD}, list[int]()
    if group[start] != group[_DEAD]:
        numbers[int(group[start])] = 1
        todo.append(int(group[start]))
    for each in todo:  # grows while it is read
        for successor in dict.fromkeys(group[table[leaders[each]]].tolist()):
            if successor not in numbers:
                numbers[successor] = len(numbers)
                todo.append(successor)
    rows = [_DEAD, *(leaders[each] for each in todo)]
    renumber = np.array([numbers.get(number, _DEAD) for number in range(int(group.max()) + 1)], dtype=np.int32)
    return rows, renumber[group[table[rows]]]


MOST_REPEATED = 1000
_MOST_DIGITS = 6
_BOUNDS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{(\d*)(?:,(\d*))?\}", re.DOTALL)
"""the numbers of a repetition; an escaped brace begins none, nor does one in a class"""
_ESCAPE = re.compile(r"\\(?:[pP](?:\{[^}]*\}|.)|.)", re.DOTALL)
_OTHER_CHARACTERS = re.compile(r"\\[xuU]|\(\?(?!:|s:)")
"""of a pattern that may tell characters apart which it does not hold: by their code, or without regard to case"""


def of_regex(pattern: str, alphabet: tuple[str, ...]) -> Automaton:
    """Texts that the pattern matches as a whole.

    Raises:
        InputError: not a regular expression, or one that no text of these characters matches.
    """
    bounds = [bound for found in _BOUNDS.findall(pattern) for bound in found if bound]
    if any(len(bound) > _MOST_DIGITS or int(bound) > MOST_REPEATED for bound in bounds):
        raise InputError(
            f"the regular expression {pattern!r} repeats more than {MOST_REPEATED} times; no text is so long"
        )
    if _OTHER_CHARACTERS.search(pattern):
        classes, spoken, written = np.arange(len(alphabet), dtype=np.int32), alphabet, pattern
    else:
        classes, spoken, written = _spoken_for(pattern, alphabet)
    try:
        initial, finals, transitions = _index(written, spoken)
    except (ValueError, TypeError) as error:
        told = str(error).splitlines()[0]
        if "incompatible with the regex" in told:
            told = "no text that the vocabulary can write matches it"
        raise InputError(f"the regular expression {pattern!r} cannot be used: {told}") from None
    states = {state: number for number, state in enumerate(dict.fromkeys([initial, *transitions, *finals]), start=1)}
    if len(states) > MAX_STATES:
        raise InputError(f"the regular expression {pattern!r} is too large to be kept")
    table = np.zeros((len(states) + 1, len(spoken)), dtype=np.int32)
    for state, row in transitions.items():
        table[states[state], list(row)] = [states[successor] for successor in row.values()]
    accepts = np.zeros(len(table), dtype=bool)
    accepts[[states[state] for state in finals]] = True
    return smallest(Automaton(alphabet, classes, table, accepts, 1))


def _index(pattern: str, alphabet: tuple[str, ...]) -> tuple[int, set[int], dict[int, dict[int, int]]]:
    """The state at the beginning, those in which a text may end, and what follows on each character's number."""
    from outlines_core import Index, Vocabulary  # type: ignore[import-untyped]

    end = len(alphabet)
    index = Index(pattern, Vocabulary(end, {char: [number] for number, char in enumerate(alphabet)}))
    rows = {
        state: {number: successor for number, successor in row.items() if number != end}
        for state, row in index.get_transitions().items()
    }
    return index.get_initial_state(), index.get_final_states(), rows


def _spoken_for(
    pattern: str, alphabet: tuple[str, ...]
) -> tuple[Int[NDArray[np.int32], " A"], tuple[str, ...], str]:  # fmt: skip
    """For each character the number of one that the pattern cannot tell from it; these; and the pattern with ``\\w``
    and its like written out in them, for Unicode's classes take the library seconds.

    A pattern tells apart what it holds, and what lies between two characters of it (a range); and by class. Those of
    ASCII are told apart whatever it says, since they have classes of their own.
    """
    codes = np.array([ord(char) for char in alphabet])
    marks = np.array(sorted({*range(128), *map(ord, pattern)}))
    kinds = [each for each in _ESCAPE.findall(pattern) if each[1] in "wdspWDSP"]
    traits: list[NDArray[Any]] = [np.searchsorted(marks, codes, "left"), np.searchsorted(marks, codes, "right")]
    traits += [_members(kind, alphabet) for kind in dict.fromkeys(kinds)]
    _, first, classes = np.unique(np.stack(traits), axis=1, return_index=True, return_inverse=True)
    spoken = tuple(alphabet[place] for place in first)

    def write_out(found: re.Match[str]) -> str:
        kind = found.group()
        if kind not in kinds:
            return kind
        members = "".join(re.escape(alphabet[place]) for place in first if _members(kind, alphabet)[place])
        return f"[{members}]" if members else kind

    return classes.reshape(-1).astype(np.int32), spoken, _ESCAPE.sub(write_out, pattern)


@lru_cache(maxsize=64)
def _members(kind: str, alphabet: tuple[str, ...]) -> Int[NDArray[np.int32], " A"]:
    """1 for each character that the class holds."""
    found = np.zeros(len(alphabet), dtype=np.int32)
    try:
        initial, _, transitions = _index(kind, alphabet)
    except ValueError:  # it holds none, or there is no such class, which the whole pattern will say
        return found
    found[list(transitions[initial])] = 1
    return found


def of_characters(characters: Iterable[str], alphabet: tuple[str, ...]) -> Automaton:
    """Texts of these characters alone."""
    kept = frozenset(characters)
    classes = np.array([int(char in kept) for char in alphabet], dtype=np.int32)
    table = np.array([[0, 0], [0, 1]], dtype=np.int32)
    return smallest(Automaton(alphabet, classes, table, np.array([False, True]), 1))


def of_choices(choices: Iterable[str], alphabet: tuple[str, ...]) -> Automaton:
    """These texts and no other; a choice with a character that is not there is left out.

    Raises:
        InputError: they are too many.
    """
    known = frozenset(alphabet)
    usable = [choice for choice in choices if known.issuperset(choice)]
    # A column for each character that is used, and one for all others.
    columns = {char: number for number, char in enumerate(dict.fromkeys("".join(usable)), start=1)}
    rows, accepts = [dict[int, int](), dict[int, int]()], [False, False]
    for choice in usable:
        state = 1
        for char in choice:
            if columns[char] not in rows[state]:
                rows[state][columns[char]] = len(rows)
                rows.append({})
                accepts.append(False)
                if len(rows) > MAX_STATES:
                    raise InputError(f"the choices have too many letters to be kept: more than {MAX_STATES:,}")
            state = rows[state][columns[char]]
        accepts[state] = True
    table = np.zeros((len(rows), len(columns) + 1), dtype=np.int32)
    for state, row in enumerate(rows):
        table[state, list(row)] = list(row.values())
    classes = np.array([columns.get(char, 0) for char in alphabet], dtype=np.int32)
    return smallest(Automaton(alphabet, classes, table, np.array(accepts), 1))


_NEWLINE, _FORBIDDEN = 2, 3


def of_lines(
    counted: Sequence[int], alphabet: tuple[str, ...], *, each: int, lines: int | None, forbidden: frozenset[str]
) -> Automaton:
    """Lines of which each holds characters that count for exactly ``each``.

    Args:
        counted: for each character of the alphabet what it counts: 0, or 1.
        lines: how many; None: one or more.
        forbidden: characters that no line holds.
    """
    kinds, classes = np.unique(
        [
            _NEWLINE if char == "\n" else _FORBIDDEN if char in forbidden else counts
            for char, counts in zip(alphabet, counted, strict=True)
        ],
        return_inverse=True,
    )
    # States: 1 + line * (each + 1) + count. Without a number of lines there is one line, again and again.
    rounds = lines or 1
    size = 1 + rounds * (each + 1)
    table = np.zeros((size, len(kinds)), dtype=np.int32)
    accepts = np.zeros(size, dtype=bool)
    for line in range(rounds):
        for count in range(each + 1):
            state = 1 + line * (each + 1) + count
            for column, kind in enumerate(kinds.tolist()):
                if kind == _NEWLINE:
                    follows = line + 1 if lines else line
                    table[state, column] = 1 + follows * (each + 1) if count == each and follows < rounds else _DEAD
                elif kind != _FORBIDDEN and count + kind <= each:
                    table[state, column] = state + kind
        accepts[1 + line * (each + 1) + each] = lines is None or line == rounds - 1
    return smallest(Automaton(alphabet, classes.astype(np.int32), table, accepts, 1))


def all_of(automata: Sequence[Automaton]) -> Automaton:
    """Texts that every one accepts."""
    return reduce(lambda left, right: left & right, automata)
