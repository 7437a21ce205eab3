"""Trims a model to a corpus: fewer pieces in the tokenizer, fewer rows in the model, the same logits for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from diffutron.errors import DataError
from diffutron.model import Denoiser, Loaded
from diffutron.model.vocabulary import keep_rows
from diffutron.tokens.codec import TextCodec
from diffutron.tokens.pieces import Pieces, indispensable, keep_pieces, pieces_of
from diffutron.tokens.rows import batched
from diffutron.tokens.vocabulary import Budget, choose_pieces, count_pieces


@dataclass(frozen=True)
class TrimReport:
    """What a trim took away, and what the corpus lost by it.

    Attributes:
        bytes_before: of the weights in float32.
        coverage: share of the corpus' tokens whose piece stayed.
        num_changed: texts of the corpus that decode to another string than before the trim.
    """

    pieces_before: int
    pieces_after: int
    parameters_before: int
    parameters_after: int
    bytes_before: int
    bytes_after: int
    num_texts: int
    coverage: float
    tokens_a_text_before: float
    tokens_a_text_after: float
    num_changed: int

    def as_dict(self) -> dict[str, float | int]:
        return asdict(self)


def trim(
    loaded: Loaded, read: Callable[[], Iterable[str]], budget: Budget,
    *, on_progress: Callable[[str, int], None] = lambda what, texts: None,
) -> tuple[Loaded, TrimReport]:  # fmt: skip
    """Keep the pieces that a corpus needs, and always special and added tokens, single characters and bytes.

    The model is changed in place: what ``loaded`` holds afterwards is of no use.

    Args:
        read: opens the corpus; it is read twice.

    Raises:
        DataError: the corpus holds no text.
        InputError: the budget has no room for the pieces that must stay.
        ModelError: a tokenizer of another kind than Unigram, BPE and WordPiece, or one that is not the model's.
    """
    denoiser, old = loaded.denoiser, TextCodec(loaded.tokenizer)
    pieces = pieces_of(loaded.tokenizer)
    counts = count_pieces(old, _watched(read(), "counted", on_progress))
    if not counts:
        raise DataError("no text to trim to: every text of the corpus is empty")
    kept = choose_pieces(pieces.scores, counts, budget, always=_must_stay(loaded, pieces), needs=pieces.needs)
    parameters = _count(denoiser)

    ids = loaded.tokenizer.get_vocab()
    order = sorted(kept, key=ids.__getitem__)
    tokenizer = keep_pieces(loaded.tokenizer, {piece: index for index, piece in enumerate(order)})
    keep_rows(denoiser, [ids[piece] for piece in order])

    new = TextCodec(tokenizer)
    texts = before = after = changed = 0
    for batch in batched(_watched(read(), "compared", on_progress), 256):
        for was, now in zip(old.encode_batch(batch), new.encode_batch(batch), strict=True):
            texts, before, after = texts + 1, before + len(was), after + len(now)
            changed += old.decode(was) != new.decode(now)
    return Loaded(loaded.name, denoiser, tokenizer, loaded.diffusion), TrimReport(
        pieces_before=len(ids), pieces_after=len(order),
        parameters_before=parameters, parameters_after=_count(denoiser),
        bytes_before=4 * parameters, bytes_after=4 * _count(denoiser), num_texts=texts,
        coverage=sum(count for piece, count in counts.items() if piece in kept) / counts.total(),
        tokens_a_text_before=before / texts, tokens_a_text_after=after / texts, num_changed=changed,
    )  # fmt: skip


def _must_stay(loaded: Loaded, pieces: Pieces) -> set[str]:
    tokenizer, config = loaded.tokenizer, loaded.denoiser.model.config
    ids = set(TextCodec(tokenizer).special_ids)
    ids |= {value for key, value in config.to_dict().items() if key.endswith("_token_id") and isinstance(value, int)}
    if loaded.denoiser.family.positions_follow_padding:
        ids |= set(range(config.pad_token_id))  # positions count from the padding id, which must not move
    named = map(tokenizer.backend_tokenizer.id_to_token, ids)
    return {piece for piece in named if piece is not None} | set(tokenizer.get_added_vocab()) | indispensable(pieces)


def _count(denoiser: Denoiser) -> int:
    return sum(param.numel() for param in denoiser.parameters())


def _watched(texts: Iterable[str], what: str, on_progress: Callable[[str, int], None]) -> Iterable[str]:
    for number, text in enumerate(texts, start=1):
        yield text
        if number % 256 == 0:
            on_progress(what, number)
