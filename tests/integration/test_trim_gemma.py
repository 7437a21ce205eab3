"""mmBERT-base's exact shape with the real Gemma 2 tokenizer, trimmed to the Turkish texts that ship."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from diffutron.model import Denoiser, Loaded
from diffutron.model.known import known_config
from diffutron.tokens.codec import TextCodec
from diffutron.tokens.trim import trim
from diffutron.tokens.vocabulary import Budget

ROOT = Path(__file__).parents[2]
SPEECHES = ROOT / "models/mini/src/diffutron_mini/samples/speeches.jsonl.gz"


@pytest.mark.slow
def test_a_turkish_trim_takes_half_of_all_parameters_and_nothing_of_the_texts(tmp_path):
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(ROOT / ".cache" / "gemma")
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    with torch.device("meta"):
        model = AutoModelForMaskedLM.from_config(known_config("jhu-clsp/mmBERT-base"))
    with gzip.open(SPEECHES, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    old = TextCodec(tokenizer)
    trimmed, report = trim(Loaded("mmBERT-base", Denoiser(model), tokenizer, {}), lambda: texts, Budget())
    assert report.pieces_before == 256_000
    assert report.parameters_before == 307_786_240
    assert report.parameters_after < 0.5 * report.parameters_before
    # Each piece takes its row of the tied embeddings and its entry of the bias with it.
    gone = report.pieces_before - report.pieces_after
    assert report.parameters_before - report.parameters_after == gone * (768 + 1)
    assert report.coverage == 1.0
    assert report.num_changed == 0

    trimmed.tokenizer.save_pretrained(tmp_path)
    new = TextCodec(AutoTokenizer.from_pretrained(tmp_path))
    assert len(new) == report.pieces_after
    for text in texts:
        was, now = old.encode(text), new.encode(text)
        assert old.tokenizer.convert_ids_to_tokens(was) == new.tokenizer.convert_ids_to_tokens(now)
        assert old.decode(was) == new.decode(now)
    # Scripts that no Turkish text holds are spelled in letters and bytes.
    foreign = "Zażółć gęślą jaźń. 日本語の文章 і кирилиця, 𓂀!\n\n\ttab"
    assert new.decode(new.encode(foreign)) == old.decode(old.encode(foreign))
    ids = [new.pad_id, new.start_id, new.end_id, new.mask_id]
    assert new.tokenizer.convert_ids_to_tokens(ids) == ["<pad>", "<bos>", "<eos>", "<mask>"]
