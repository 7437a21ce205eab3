"""Tiny models of every supported family, with a tokenizer trained on a few sentences of our own."""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoModelForMaskedLM,
    BertConfig,
    ModernBertConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
)

from diffutron.model import Denoiser, save_model
from diffutron.tokens.codec import TextCodec
from diffutron.tokens.unigram import NEWLINE, SPECIALS, WORD_START, build_unigram_tokenizer

FamilyName = Literal["bert", "modernbert", "xlm-roberta"]

PLAIN_CORPUS: dict[str, Any] = {
    "min_characters": 10, "filters": "none", "duplicates": {"near": False, "paragraphs": False},
    "decontaminate": "none",
}  # fmt: skip
"""a corpus recipe's settings that keep every text but exact repetitions: tiny texts are all too short and alike"""

TINY_TEXTS = (
    "Ankara Türkiye'nin başkentidir ve İç Anadolu'da yer alır.",
    "Sabah erkenden kalkıp denize bakan küçük evin kapısını açtı.",
    "Çocuklar bahçede oynarken ışıklar birer birer söndü.",
    "Kitabı okudum, defteri kapattım, ardından uzun uzun düşündüm.",
    "Iğdır'dan İstanbul'a giden tren gece yarısı yola çıktı.\nYolcular uyuyordu.",
    "Yağmur yağınca sokaklar boşalır, kahveler dolar.",
    "Bir varmış bir yokmuş, uzak bir ülkede yaşlı bir değirmenci yaşarmış.",
    "Öğretmen soruyu sordu, sınıfın yarısı parmak kaldırdı.",
)


@functools.cache
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """About 200 Unigram pieces, all single characters of Turkish among them.

    The parts of words that save most when they are one piece; a trainer would break ties at random, and every process
    have another tokenizer.
    """
    letters = "abcçdefgğhıijklmnoöprsştuüvyzABCÇDEFGĞHIİJKLMNOÖPRSŞTUÜVYZ0123456789.,'!?"
    parts: Counter[str] = Counter()
    for word in " ".join(TINY_TEXTS).split():
        marked = WORD_START + word
        places = itertools.combinations(range(len(marked) + 1), 2)
        parts.update(marked[start:end] for start, end in places if 2 <= end - start <= 7)
    saved = sorted(parts, key=lambda part: (-parts[part] * (len(part) - 1), part))[: 190 - len(letters)]
    ranked = [WORD_START, *saved]
    pieces = [(piece, -float(rank + 1) / 20) for rank, piece in enumerate(ranked)]
    pieces += [(letter, -15.0) for letter in letters]
    return build_unigram_tokenizer([*((piece, 0.0) for piece in (*SPECIALS, NEWLINE)), *pieces], max_tokens=64)


def tiny_codec() -> TextCodec:
    return TextCodec(tiny_tokenizer())


def tiny_config(family: FamilyName = "bert", **changes: Any) -> PreTrainedConfig:
    """Two to four layers, 32 wide."""
    ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2}
    shape = {"vocab_size": len(tiny_tokenizer()), "hidden_size": 32, "num_hidden_layers": 2,
             "num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 64, **ids}  # fmt: skip
    calm = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    if family == "bert":
        return BertConfig(**{**shape, **calm, **changes})
    if family == "xlm-roberta":
        return XLMRobertaConfig(**{**shape, **calm, "max_position_embeddings": 66, "type_vocab_size": 1, **changes})
    window = {"local_attention": 8, "global_attn_every_n_layers": 3, "num_hidden_layers": 4}
    return ModernBertConfig(**{**shape, **window, **changes})


def tiny_denoiser(
    family: FamilyName = "bert", *, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any
) -> Denoiser:
    """A denoiser with random weights, spread enough to have opinions."""
    torch.manual_seed(seed)
    model = AutoModelForMaskedLM.from_config(tiny_config(family, **changes), dtype=dtype)
    with torch.no_grad():
        for param in model.parameters():
            if param.ndim == 2:
                param.mul_(4.0)
    return Denoiser(model).eval()


def tiny_folder(folder: Path, family: FamilyName = "bert", *, seed: int = 0) -> Path:
    """A checkpoint folder of a tiny model."""
    save_model(folder, tiny_denoiser(family, seed=seed), tiny_tokenizer(), {"format": 1, "learned_end": True})
    return folder
