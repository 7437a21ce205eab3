"""Constraints on text as finite automata over characters: what can be said so can be kept in any order of filling."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

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
    table, accepts = given.table, given.accepts
    size = len(table)
    # What can still be accepted; the rest is dead.
    hopeful = accepts.copy()
    while True:
        more = hopeful | hopeful[table].any(axis=1)
        more[_DEAD] = False
        if (more == hopeful).all():
            break
        hopeful = more
    table = np.where(hopeful[table], table, _DEAD)
    # Moore's refinement: states stay together while their successors do. Groups are numbered without a hole, since the
    # highest number tells whether there are more of them than before.
    _, group = np.unique(np.where(hopeful, 1 + accepts, 0), return_inverse=True)
    group = group.reshape(-1)
    while True:
        signature = np.concatenate([group[:, None], group[table]], axis=1)
        _, finer = np.unique(signature, axis=0, return_inverse=True)
        finer = finer.reshape(-1)
        if finer.max() == group.max():
            break
        group = finer
    # The dead state first, then in the order in which they are reached.
    leaders = {int(number): place for place, number in reversed(list(enumerate(group)))}
    numbers, todo = {int(group[_DEAD]): _DEAD}, list[int]()
    if group[given.start] != group[_DEAD]:
        numbers[int(group[given.start])] = 1
        todo.append(int(group[given.start]))
    for each in todo:
        for successor in dict.fromkeys(group[table[leaders[each]]].tolist()):
            if successor not in numbers:
                numbers[successor] = len(numbers)
                todo.append(successor)
    rows = [_DEAD, *(leaders[each] for each in todo)]
    renumber = np.array([numbers.get(number, _DEAD) for number in range(int(group.max()) + 1)], dtype=np.int32)
    lesser = renumber[group[table[rows]]]
    columns, inverse = np.unique(lesser, axis=1, return_inverse=True)
    classes = inverse.reshape(-1)[given.classes].astype(np.int32)
    assert size >= len(rows)
    return Automaton(given.alphabet, classes, columns.astype(np.int32), accepts[rows] & hopeful[rows],
                     1 if len(rows) > 1 else _DEAD)  # fmt: skip


MOST_REPEATED = 1000
_BOUNDS = re.compile(r"\{(\d*)(?:,(\d*))?\}")


def of_regex(pattern: str, alphabet: tuple[str, ...]) -> Automaton:
    """Texts that the pattern matches as a whole.

    Raises:
        InputError: not a regular expression, or one that no text of these characters matches.
    """
    from outlines_core import Index, Vocabulary  # type: ignore[import-untyped]

    if any(int(bound or 0) > MOST_REPEATED for bounds in _BOUNDS.findall(pattern) for bound in bounds):
        raise InputError(
            f"the regular expression {pattern!r} repeats more than {MOST_REPEATED} times; no text is so long"
        )
    end = len(alphabet)
    vocabulary = Vocabulary(end, {char: [number] for number, char in enumerate(alphabet)})
    try:
        index = Index(pattern, vocabulary)
    except (ValueError, TypeError) as error:
        told = str(error).splitlines()[0]
        if "incompatible with the regex" in told:
            told = "no text that the vocabulary can write matches it"
        raise InputError(f"the regular expression {pattern!r} cannot be used: {told}") from None
    transitions = index.get_transitions()
    found = dict.fromkeys([index.get_initial_state(), *transitions, *index.get_final_states()])
    states = {state: number for number, state in enumerate(found, start=1)}
    if len(states) > MAX_STATES:
        raise InputError(f"the regular expression {pattern!r} is too large to be kept")
    table = np.zeros((len(states) + 1, len(alphabet)), dtype=np.int32)
    for state, row in transitions.items():
        kept = {column: states[successor] for column, successor in row.items() if column != end}
        table[states[state], list(kept)] = list(kept.values())
    accepts = np.zeros(len(table), dtype=bool)
    accepts[[states[state] for state in index.get_final_states()]] = True
    return smallest(Automaton(alphabet, np.arange(len(alphabet), dtype=np.int32), table, accepts, 1))


def of_choices(choices: Iterable[str], alphabet: tuple[str, ...]) -> Automaton:
    """These texts and no other; a choice with a character that is not there is left out.

    Raises:
        InputError: they are too many.
    """
    columns = {char: number for number, char in enumerate(alphabet)}
    rows, accepts = [dict[int, int](), dict[int, int]()], [False, False]
    for choice in choices:
        if not all(char in columns for char in choice):
            continue
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
    table = np.zeros((len(rows), len(alphabet)), dtype=np.int32)
    for state, row in enumerate(rows):
        table[state, list(row)] = list(row.values())
    classes = np.arange(len(alphabet), dtype=np.int32)
    return smallest(Automaton(alphabet, classes, table, np.array(accepts), 1))


def of_lines(
    counted: Sequence[int], alphabet: tuple[str, ...], *, each: int, lines: int | None, forbidden: frozenset[str]
) -> Automaton:
    """Lines of which each holds characters that count for exactly ``each``.

    Args:
        counted: for each character of the alphabet what it counts: 0, or 1.
        lines: how many; None: one or more.
        forbidden: characters that no line holds.
    """
    # States: 1 + line * (each + 1) + count. Without a number of lines there is one line, again and again.
    rounds = lines or 1
    size = 1 + rounds * (each + 1)
    table = np.zeros((size, len(alphabet)), dtype=np.int32)
    accepts = np.zeros(size, dtype=bool)
    for line in range(rounds):
        for count in range(each + 1):
            state = 1 + line * (each + 1) + count
            for column, char in enumerate(alphabet):
                if char == "\n":
                    follows = line + 1 if lines else line
                    table[state, column] = 1 + follows * (each + 1) if count == each and follows < rounds else _DEAD
                elif char not in forbidden and count + counted[column] <= each:
                    table[state, column] = state + counted[column]
        accepts[1 + line * (each + 1) + each] = lines is None or line == rounds - 1
    return smallest(Automaton(alphabet, np.arange(len(alphabet), dtype=np.int32), table, accepts, 1))


def all_of(automata: Sequence[Automaton]) -> Automaton:
    """Texts that every one accepts."""
    return reduce(lambda left, right: left & right, automata)
