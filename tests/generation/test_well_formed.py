"""Pieces that break a Turkish word lose, others do not, and what loses is still possible."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import diffutron
from diffutron.errors import InputError
from diffutron.generation import Generator, Request, SamplerSettings
from diffutron.generation.well_formed import WellFormed, clash, features_of, word_judge
from diffutron.testing import tiny_codec, tiny_denoiser


@pytest.fixture(scope="module")
def codec():
    return diffutron.load("mini").codec


@pytest.fixture(scope="module")
def features(codec):
    return features_of(codec, len(codec))


def piece(codec, text):
    """``_`` begins a word."""
    wanted = text.replace("_", " ")
    starts = [bool(each) for each in codec.starts_word]
    found = [
        index for index, each in enumerate(codec.piece_texts)
        if each.strip() == wanted.strip() and starts[index] == (wanted[0] == " ")
    ]  # fmt: skip
    assert found, f"no piece {text!r}"
    return found[0]


@pytest.mark.parametrize(("left", "right"), [
    ("_kitap", "ler"), ("_ev", "lar"), ("_kitap", "da"), ("_ev", "te"), ("_var", "Bir"), ("_gel", "3"), ("5", "ler"),
])  # fmt: skip
def test_pieces_that_cannot_be_one_word_clash(codec, features, left, right):
    assert clash(features, np.array([piece(codec, left)]), np.array([piece(codec, right)])).all()


@pytest.mark.parametrize(("left", "right"), [
    ("_kitap", "lar"), ("_ev", "ler"), ("_kitap", "ta"), ("_ev", "de"), ("_kitap", "_en"), ("_var", "_Bir"),
    ("_ev", "_3"), ("_ol", "uyor"), ("_ev", "'"), ("_19", "23"),
])  # fmt: skip
def test_pieces_that_can_do_not(codec, features, left, right):
    assert not clash(features, np.array([piece(codec, left)]), np.array([piece(codec, right)])).any()


def adjusted(codec, tokens, position, is_well_spelled=lambda text: True, logits=None):
    guide = WellFormed(codec, nats=4.0, vocabulary=len(codec), is_well_spelled=is_well_spelled)
    logits = torch.zeros(1, len(codec)) if logits is None else logits
    guide.adjust(logits, tokens, [position])
    return logits[0]


def test_a_suffix_is_seen_over_an_apostrophe_and_from_the_right(codec):
    da, de, apostrophe = (piece(codec, each) for each in ("da", "de", "'"))
    row = [piece(codec, "_Ankara"), apostrophe, None, piece(codec, "_ev")]
    found = adjusted(codec, row, 2)
    assert found[de] == -4
    assert found[da] == 0
    found = adjusted(codec, [None, piece(codec, "lar"), piece(codec, "_ev")], 0)
    assert found[piece(codec, "_ev")] == -4
    assert found[piece(codec, "_okul")] == 0


def test_a_word_that_is_no_word_is_not_ended_and_a_last_piece_that_makes_a_non_word_loses(codec):
    stem, rest = piece(codec, "_kitap"), piece(codec, "lar")

    def knows(text):
        return text in ("kitap", "kitaplar")

    found = adjusted(codec, [piece(codec, "_ev"), None, piece(codec, "_ev")], 1, knows)
    assert found[stem] == -4  # "ev" is no word here, and is not ended
    found = adjusted(codec, [stem, None, None], 1, knows)
    assert found[piece(codec, "_ev")] == 0
    assert found[rest] == 0  # the word may go on
    logits = torch.zeros(1, len(codec))
    logits[0, [rest, piece(codec, "ta")]] = 5.0
    found = adjusted(codec, [stem, None, piece(codec, "_ev")], 1, knows, logits)
    assert found[rest] == 5
    assert found[piece(codec, "ta")] == 1


def test_nothing_is_forbidden_and_no_piece_loses_twice():
    generator = Generator(tiny_denoiser(), tiny_codec())
    canvas = generator.guided(generator.canvas(Request("Ankara", 6)), SamplerSettings(well_formed=3.0))
    [guide] = canvas.guides
    logits = torch.zeros(6, len(generator.bias))
    guide.adjust(logits, [None if position in canvas.free else each for position, each in enumerate(canvas.tokens)],
                 list(canvas.free))  # fmt: skip
    assert set(logits.unique().tolist()) <= {0.0, -3.0}
    assert guide.admits([], 0, 0)


def test_without_a_dictionary_letters_must_stand_in_an_order_that_turkish_allows():
    judge = word_judge()
    assert judge("kitaplarımızdan")
    assert judge("Ankara'da")
    assert not judge("grrrl")
    assert not judge("kwtap")


def test_a_dictionary_is_used_or_refused(tmp_path):
    with pytest.raises(ValidationError, match="used by well_formed alone"):
        SamplerSettings(dictionary=tmp_path / "tr.dic")
    with pytest.raises(InputError, match=r"tr\.dic does not exist"):
        word_judge(tmp_path / "tr.dic")
    hunspell = pytest.importorskip("hunspell")
    assert hunspell
    (tmp_path / "tr.dic").write_text("2\nev\nkitap\n", encoding="utf-8")
    (tmp_path / "tr.aff").write_text("SET UTF-8\n", encoding="utf-8")
    judge = word_judge(tmp_path / "tr.dic")
    assert judge("ev")
    assert judge("Kitap")
    assert judge("Zonguldak")  # perhaps a name
    assert not judge("ktap")
