"""Builds a Hugging Face tokenizer from Unigram pieces, with XLM-R's normalisation and newline as a piece of its own."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
NEWLINE = "\n"
WORD_START = "▁"


def build_unigram_tokenizer(pieces: Sequence[tuple[str, float]], *, max_tokens: int = 512) -> PreTrainedTokenizerFast:
    """A tokenizer over ``pieces`` (piece, log probability), which must begin with :data:`SPECIALS` and newline.

    Normalisation is SentencePiece's ``nmt_nfkc``, as XLM-R's: ``Nmt`` then NFKC, runs of spaces collapsed, ends
    stripped. Newline never reaches it: it is an added, ordinary token, so it is learned and generated like any other.
    """
    head = tuple(piece for piece, _ in pieces[: len(SPECIALS) + 1])
    if head != (*SPECIALS, NEWLINE):
        raise ValueError(f"the pieces must begin with {(*SPECIALS, NEWLINE)}, not {head}")
    tokenizer = Tokenizer(models.Unigram(list(pieces), unk_id=SPECIALS.index("<unk>"), byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=WORD_START, prepend_scheme="always")
    # The word that follows a newline carries its own space, which is not shown.
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(WORD_START, " "),
            decoders.Fuse(),
            decoders.Replace("\n ", "\n"),
            decoders.Strip(content=" ", left=1, right=0),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", SPECIALS.index("<s>")), ("</s>", SPECIALS.index("</s>"))],
    )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIALS])
    tokenizer.add_tokens([AddedToken(NEWLINE, normalized=False, special=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>", eos_token="</s>", cls_token="<s>", sep_token="</s>",
        pad_token="<pad>", unk_token="<unk>", mask_token="<mask>",
        model_max_length=max_tokens, clean_up_tokenization_spaces=False,
    )  # fmt: skip
