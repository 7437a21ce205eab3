"""Constraints hold whatever the order of filling, and what cannot be kept is said before any work."""

import itertools
import random
import re
import unicodedata

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from diffutron.errors import InputError
from diffutron.generation import (
    Choice,
    Contains,
    Generator,
    Infiller,
    Letters,
    PieceBias,
    Regex,
    Request,
    SamplerSettings,
    Syllables,
    Words,
)
from diffutron.generation.automaton import _index, of_choices, of_lines, of_regex
from diffutron.generation.constraints import VOWELS, joint_automaton
from diffutron.generation.span_guide import surfaces
from diffutron.testing import tiny_codec, tiny_denoiser
from diffutron.tokens.codec import TextCodec

CODEC = tiny_codec()
ALPHABET = tuple(sorted(set("".join(surfaces(CODEC)))))


def texts_of(alphabet, longest):
    for length in range(longest + 1):
        yield from map("".join, itertools.product(alphabet, repeat=length))


def test_automata_accept_what_they_say_and_products_what_both_do():
    alphabet = tuple("abn \n1ı")
    pattern = r"(?:(?s:.*)[^a-z])?ab[a-z]{0,2}(?:[^a-z](?s:.*))?"
    matching = of_regex(pattern, alphabet)
    counted = of_lines([int(char in "aı") for char in alphabet], alphabet, each=2, lines=None, forbidden=frozenset("1"))
    either = of_choices(["ab", "abn"], alphabet)
    soft, product = counted.with_soft_spaces(), matching & counted
    for text in texts_of(alphabet, 5):
        matches = re.fullmatch(pattern, text) is not None
        counts = "1" not in text and all(sum(char in "aı" for char in line) == 2 for line in text.split("\n"))
        assert (text in matching) == matches
        assert (text in counted) == counts
        assert (text in product) == (matches and counts)
        assert (text in either) == (text in ("ab", "abn"))
        assert (text in soft) == (re.sub("(?m)^ ", "", text) in counted)


def test_smallest_automaton_is_smallest():
    alphabet = tuple("ab")
    assert len(of_regex("(a|b)*", alphabet).table) == 2  # dead, and one more
    assert len(of_choices(["aa", "ba", "ab", "bb"], alphabet).table) == 4  # dead, and one for each length
    assert (of_regex("a+", alphabet) & of_regex("b+", alphabet)).is_empty


@pytest.mark.parametrize("pattern", ["a?", "a{0,2}", "[ab]{0,3}", ".{0,4}", "(?:a(?:b(?:a)?)?)?", "a*"])
def test_a_bound_is_kept_where_every_state_accepts(pattern):
    alphabet = tuple("ab ")
    bounded = of_regex(pattern, alphabet)
    soft = bounded.with_soft_spaces()
    for text in texts_of(alphabet, 6):
        assert (text in bounded) == (re.fullmatch(pattern, text) is not None), text
        assert (text in soft) == any(re.fullmatch(pattern, each) for each in (text, text.removeprefix(" "))), text


def test_prefixes_of_random_classes_are_neither_more_nor_fewer():
    rng = random.Random(0)
    alphabet = tuple("abc")
    for _ in range(60):
        pattern = ""
        for _ in range(rng.randint(1, 4)):
            pattern = f"(?:[{''.join(rng.sample('abc', rng.randint(1, 3)))}]{pattern})?"
        found = of_regex(pattern, alphabet)
        assert all((text in found) == (re.fullmatch(pattern, text) is not None) for text in texts_of(alphabet, 5))


def letters_in(text):
    return re.findall(r"[^\W\d_]+", text)


def lines_of(text):
    return [line.lstrip(" ") for line in text.split("\n")]


def random_constraint(rng):
    """A constraint, and a check of it that shares no code with it."""
    kind = rng.randrange(7)
    if kind == 0:
        pattern = rng.choice([r"[a-z ]{5,30}", r"\d{4}", r"(?:ev|okul)[a-zçğıöşü ]*\.", r"[A-ZÇĞİÖŞÜ][a-zçğıöşü]+,.*"])
        return Regex(pattern), lambda text: re.fullmatch(pattern, text, re.DOTALL) is not None
    if kind == 1:
        options = tuple(rng.sample(["ev", "Ankara", "güzel kitap", "okula gitti", "su", "üç beş"], 3))
        return Choice(options), lambda text: text in options
    if kind == 2:
        allowed = "".join(rng.sample("abcçdefgğhıiklmnoöprsştuüvyz", 12))
        return Letters(allowed), lambda text: set(text) <= {*allowed, " "}
    if kind == 3:
        word = rng.choice(["ev", "okul", "kitap", "Ali", "su"])
        return Contains(word), lambda text: bool({word, word[0].upper() + word[1:]} & set(letters_in(text)))
    if kind == 4:
        stem = rng.choice(["kitap", "ağaç", "köpek", "ev"])
        spelled = {"kitap": "[Kk]ita[pb]", "ağaç": "[Aa]ğa[çc]", "köpek": "[Kk]öpe[kğ]", "ev": "[Ee]v"}[stem]
        forms = re.compile(r"(?<![^\W\d_])" + spelled)
        return Contains(stem, inflected=True), lambda text: forms.search(text) is not None
    each, lines = rng.randint(2, 6), rng.choice([None, 1, 2])
    if kind == 5:

        def has_syllables(text):
            parts = lines_of(text)
            counts = [sum(char in VOWELS for char in line) for line in parts]
            return set(counts) == {each} and (lines is None or len(parts) == lines) and not re.search(r"\d", text)

        return Syllables(each, lines), has_syllables

    def has_words(text):
        parts = lines_of(text)
        return all(len(line.split(" ")) == each == len(line.split()) for line in parts) and lines in (None, len(parts))

    return Words(each, lines), has_words


@pytest.mark.parametrize("learned_end", [True, False])
def test_constraints_hold_in_a_thousand_random_cases(learned_end):
    generator = Generator(tiny_denoiser(), CODEC, learned_end=learned_end)
    rng, kept, refused = random.Random(int(learned_end)), 0, 0
    while kept < 500:
        chosen = [random_constraint(rng) for _ in range(rng.choice([1, 1, 2]))]
        request = Request(
            rng.choice(["", "Dün", "Ankara'da "]), rng.randint(6, 20), seed=kept + 1000 * refused,
            constraints=tuple(constraint for constraint, _ in chosen),
        )  # fmt: skip
        settings = SamplerSettings(
            order=rng.choice(["random", "confidence", "margin"]), temperature=rng.choice([0.0, 0.7, 3.0]),
            pace=rng.choice(["even", "threshold:0.1", "factor:2"]), block_length=rng.choice([4, 8, 32]),
            steps=rng.choice([None, 3]), top_p=rng.choice([None, 0.9]),
            revision=rng.choice([None, None, "cap:0.3", "p2:1"]),
        )  # fmt: skip
        try:
            [completion] = generator.complete([request], settings)
        except InputError:
            refused += 1
            continue
        assert completion.failed is None
        text = completion.completion.lstrip(" ")
        for constraint, holds in chosen:
            assert holds(text), (constraint, completion)
        kept += 1
    assert refused < kept  # random pairs contradict each other often enough


@pytest.mark.parametrize("order", ["random", "confidence"])
def test_gaps_keep_their_own_constraints_and_what_is_typed_stays(order):
    generator = Generator(tiny_denoiser("modernbert"), CODEC)
    text = "Ankara [MASK:?] evde [MASK:4]; [MASK:?] okul."
    constraints = {1: [Choice(("güzel", "büyük bir"))], 2: [Letters("abcde")], 3: [Regex(r"\d+")]}
    settings = SamplerSettings(order=order, temperature=1.0)
    for seed in range(20):
        [way] = Infiller(generator, text, constraints, seed, max_gap=6).fill(settings)
        first, second, third = way.gaps
        assert first in ("güzel", "büyük bir")
        assert set(second) <= set("abcde ")
        assert third.isdigit()
        assert way.text == f"Ankara {first} evde {second}; {third} okul."
        assert way.lengths[1] == 4


@pytest.mark.parametrize(("constraints", "message"), [
    ([Regex("(")], "cannot be used"),
    ([Regex("ﷺ")], "cannot be used"),
    ([Letters("abc"), Contains("zil")], "contradict"),
    ([Syllables(3), Regex(r"\d+")], "contradict"),
    ([Contains("日本")], "cannot spell '日本'"),
    ([Contains("iki söz")], "is one word"),
    ([Choice(("", " "))], "at least one option"),
    ([Choice(("日本",))], "has not the characters"),
    ([Letters("日")], "has none of the characters"),
    ([Syllables(0)], "at least 1 of the syllables"),
    ([Words(3, lines=0)], "at least 1 line"),
    ([Words(12)], "no text of 8 tokens"),
])  # fmt: skip
def test_what_cannot_be_kept_is_said_before_any_work(constraints, message):
    denoiser = tiny_denoiser()
    denoiser.model.base_model.register_forward_hook(lambda *_: pytest.fail("the model was asked"))
    with pytest.raises(InputError, match=message):
        Generator(denoiser, CODEC).complete([Request("", 8, constraints=tuple(constraints))], SamplerSettings())


def test_a_forbidden_way_out_in_the_middle_is_told():
    class Nothing:
        def adjust(self, logits, tokens, positions):
            if sum(token is None for token in tokens) < 4:
                logits[:] = -np.inf

        def admits(self, tokens, position, token):
            return True

    [completion] = Generator(tiny_denoiser(), CODEC).complete([Request("", 8, guides=(Nothing(),))], SamplerSettings())
    assert completion.finish_reason == "failed"
    assert "constraints" in completion.failed
    assert completion.completion
    assert "mask" not in completion.completion


def test_inflected_forms_that_turkish_makes_are_accepted():
    kitap = joint_automaton([Contains("kitap", inflected=True)], ALPHABET)
    for text in ("kitap", "kitabımızdan", "bu Kitaplar!", "bir kitabın içinde"):
        assert text in kitap
    for text in ("mektup", "elkitabı", "kitpa", ""):
        assert text not in kitap
    assert "kitabı" not in joint_automaton([Contains("kitap")], ALPHABET)
    assert "Ali'nin evi" in joint_automaton([Contains("Ali", inflected=True)], ALPHABET)


@pytest.mark.parametrize("prompt", ["Kara", "Kara ", "Kara\n", "3"])
@pytest.mark.parametrize("wanted", [(Contains("deniz"),), (Words(2),)])
def test_words_that_are_asked_for_do_not_go_on_with_the_prompts(prompt, wanted):
    generator = Generator(tiny_denoiser(), CODEC)
    requests = [Request(prompt, 10, seed=seed, constraints=wanted) for seed in range(10)]
    for completion in generator.complete(requests, SamplerSettings(order="random", temperature=3.0)):
        words = completion.text.split()
        assert words[0] == prompt.strip()
        assert "deniz" in letters_in(completion.text.lower()) or len(words) == 3


@pytest.mark.parametrize("prompt", ["Ankara ", "Ankara\n", " Ankara\t"])
def test_after_a_space_a_word_begins(prompt):
    generator = Generator(tiny_denoiser(), CODEC)
    requests = [Request(prompt, 5, seed=seed) for seed in range(40)]
    first = generator.canvas(requests[0]).free[0]
    steps = generator.steps(requests, SamplerSettings(order="random", temperature=3.0, top_p=None))
    assert all(CODEC.starts_word[step.tokens[first]] for step in steps if step.done)
    glued = [generator.canvas(Request(bare, 5)).guides for bare in ("", " ", "Ankara")]
    assert glued == [(), (), ()]


LARGE = tuple(sorted({*map(chr, range(32, 0x3000)), "\n"} - {chr(code) for code in range(127, 160)}))


@pytest.mark.parametrize("make", [
    lambda: of_choices(["abcçdefgğhıijklmnoöprsştuüvyz" * 3], LARGE),
    lambda: of_choices([f"{number * 7919} ev" * 10 for number in range(30)], LARGE),
    lambda: of_regex("[a-z]{40}", LARGE),
    lambda: of_regex(r"\w{0,1000}", LARGE),
    lambda: of_lines([int(char in VOWELS) for char in LARGE], LARGE, each=10, lines=100, forbidden=frozenset("1")),
    lambda: Words(10, 100).automaton(LARGE),
])  # fmt: skip
def test_an_automaton_over_a_large_alphabet_is_made_at_all(make):
    assert not make().is_empty  # characters taken one by one need longer than a test may


@pytest.mark.parametrize("pattern", [
    r"\w", r"\W", r"\d", r"\s", r"\S", r"[^\W\d_]", r"[\w-]", r"[^\s]", r".", r"[a-ğ]", r"[^а-я]", r"\\w", r"\\\w",
    r"(?i)[ö-ü]", r"[ç-\u00fc]", r"[[:alpha:]ş]",
])  # fmt: skip
def test_a_pattern_tells_apart_what_it_tells_apart_character_by_character(pattern):
    initial, finals, transitions = _index(pattern, LARGE)
    alone = {LARGE[place] for place, state in transitions[initial].items() if state in finals}
    found = of_regex(pattern, LARGE)
    accepted = found.accepts[found.table[found.start, found.classes]]
    assert {char for char, is_in in zip(LARGE, accepted, strict=True) if is_in} == alone


def test_braces_in_a_class_are_no_repetition():
    assert "2a" in of_regex("[{2000}]a", tuple("{}20a"))


def wordpiece():
    """With the decoder that BERT's tokenizers have."""
    specials = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    letters = "abcdefgkotuvln.,!'"
    pieces = [*specials, *letters, *(f"##{letter}" for letter in letters), "ev", "okul", "##da"]
    tokenizer = Tokenizer(models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in specials])
    return TextCodec(PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        mask_token="<mask>",
    ))  # fmt: skip


def test_a_text_of_word_pieces_begins_with_a_word():
    generator = Generator(tiny_denoiser(), wordpiece())
    requests = [Request("", 4, seed=seed) for seed in range(30)]
    for completion in generator.complete(requests, SamplerSettings(order="random", temperature=3.0, top_p=None)):
        assert "#" not in completion.text


def test_a_forbidden_piece_leads_into_no_dead_end():
    bias = PieceBias({"b": -np.inf}, CODEC)
    wanted = (Regex("(a+b|c+d)"),)
    generator = Generator(tiny_denoiser(), CODEC)
    requests = [Request("", 6, seed=seed, constraints=wanted, guides=(bias,)) for seed in range(20)]
    for completion in generator.complete(requests, SamplerSettings(order="random", temperature=3.0)):
        assert re.fullmatch("c+d", completion.completion.strip())
    with pytest.raises(InputError, match="no text of 6 tokens"):
        generator.complete([Request("", 6, constraints=(Regex("a+b"),), guides=(bias,))], SamplerSettings())


def test_a_gap_of_which_newlines_are_asked_has_them():
    generator = Generator(tiny_denoiser(), CODEC)
    [way] = Infiller(generator, "ev [MASK:4] okul", {1: [Regex(r"\n[a-z]+\n")]}).fill(SamplerSettings())
    assert re.fullmatch(r"\n[a-z]+\n", way.gaps[0])
    assert way.gaps[0] in way.text


@pytest.mark.parametrize("make", [
    lambda word: Contains(word), lambda word: Choice((word,)), lambda word: Regex(word), lambda word: Letters(word)
])  # fmt: skip
def test_letters_may_come_in_parts(make):
    whole, parts = (make(unicodedata.normalize(form, "çöğü")).automaton(LARGE) for form in ("NFC", "NFD"))
    assert "çöğü" in whole
    assert "çöğü" in parts


def test_space_around_a_word_that_must_stand_changes_nothing():
    assert "denizin" in Contains(" deniz ", inflected=True).automaton(LARGE)
    assert "deniz in" in Contains("deniz ").automaton(LARGE)
