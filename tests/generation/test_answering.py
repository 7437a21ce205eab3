"""An answer depends on its own conversation alone, ends where the template ends it, and what no longer fits is told."""

from dataclasses import dataclass, field

import pytest

from diffutron.corpus.conversations import Turn
from diffutron.errors import InputError
from diffutron.generation import Completion, Generator, SamplerSettings
from diffutron.generation.chat import Chat, turns_of_messages
from diffutron.testing import tiny_codec, tiny_denoiser
from diffutron.tokens.chat import TAGS, TEMPLATE, ChatFormat

CODEC = tiny_codec()
SETTINGS = SamplerSettings(temperature=0.7)
SYSTEM, HELLO = Turn("system", "Kısa yanıtla."), Turn("user", "Denizde ne var?")


@pytest.fixture(scope="module", params=[TEMPLATE, TAGS])
def chat(request):
    generator = Generator(tiny_denoiser("bert", max_position_embeddings=256), CODEC, learned_end=True)
    return Chat(generator, ChatFormat(CODEC, request.param))


def talk(rounds, *, system=False):
    pairs = [(Turn("user", f"{number} evde ne var?"), Turn("assistant", "deniz var")) for number in range(rounds)]
    return [*([SYSTEM] if system else []), *(turn for pair in pairs for turn in pair), HELLO]


def test_an_answer_depends_on_its_own_conversation_alone(chat):
    questions = [talk(0), talk(1, system=True), talk(2)]
    together = chat.answer(questions, SETTINGS, max_new_tokens=6, seed=3)
    assert together == [chat.answer([each], SETTINGS, max_new_tokens=6, seed=3)[0] for each in questions]
    assert together != chat.answer(questions, SETTINGS, max_new_tokens=6, seed=4)


@pytest.mark.parametrize("system", [False, True])
def test_the_oldest_turns_go_where_the_context_is_full_and_the_system_text_stays(chat, system):
    most = chat.generator.denoiser.max_positions
    long = talk(40, system=system)
    assert len(chat.format.encode(long, ask=True).ids) > most
    [reply] = chat.answer([long], SETTINGS, max_new_tokens=6)
    assert reply.num_forgotten > 0
    assert reply.num_forgotten % 2 == 0
    opening = [SYSTEM] if system else []
    kept = [*opening, *long[len(opening) + reply.num_forgotten :]]
    [again] = chat.answer([kept], SETTINGS, max_new_tokens=6)
    assert (again.text, again.num_forgotten) == (reply.text, 0)
    one_more = [*opening, *long[len(opening) + reply.num_forgotten - 2 :]]
    assert len(chat.format.encode(one_more, ask=True).ids) > most - 6


@pytest.mark.parametrize(("turns", "reason"), [
    ([], "by turns"), ([SYSTEM], "by turns"), ([HELLO, Turn("assistant", "su")], "by turns"),
    ([Turn("user", " ev" * 400)], "does not fit: the model reads"), ([Turn("user", "")], "empty user turn, number 1"),
])  # fmt: skip
def test_what_is_no_question_is_refused_in_one_line(chat, turns, reason):
    with pytest.raises(InputError, match=reason) as error:
        chat.answer([turns], SETTINGS, max_new_tokens=6)
    assert "\n" not in str(error.value)


@dataclass
class Scripted:
    """A generator that says what it is told to."""

    completion: str
    finish_reason: str = "length"
    denoiser: object = field(default_factory=lambda: tiny_denoiser("bert", max_position_embeddings=256))

    def complete(self, requests, settings, on_step):
        return [Completion(each.prompt, self.completion, "", self.finish_reason, 4, each.seed, 1.0)
                for each in requests]  # fmt: skip


@pytest.mark.parametrize(("template", "said", "reason", "expected"), [
    (TAGS, "su var\n[/Answer]\n\n[Question]", "length", ("su var", "stop")), (TAGS, "su", "length", ("su", "length")),
    (TEMPLATE, " su var", "stop", ("su var", "stop")), (TEMPLATE, "su [/Answer]", "length", ("su [/Answer]", "length")),
])  # fmt: skip
def test_an_answer_ends_where_its_template_ends_it(template, said, reason, expected):
    [reply] = Chat(Scripted(said, reason), ChatFormat(CODEC, template)).answer([[HELLO]], SETTINGS)
    assert (reply.text, reply.finish_reason) == expected


def test_messages_are_a_question_or_turns():
    assert turns_of_messages("Nerede?") == [Turn("user", "Nerede?")]
    assert turns_of_messages([{"role": "human", "content": "Nerede?"}]) == [Turn("user", "Nerede?")]
    for wrong in ([{"role": "tool", "content": "x"}], ["Nerede?"], [{"role": "user"}]):
        with pytest.raises(InputError):
            turns_of_messages(wrong)
