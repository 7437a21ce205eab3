"""A document in a packed row is computed as if it were alone, for every encoder family."""

import pytest
import torch

from diffutron.diffusion import MaskedBatch, masked_nll
from diffutron.model import attention
from diffutron.model.attention import Segments
from diffutron.testing import tiny_denoiser

FAMILIES = ("bert", "modernbert", "xlm-roberta")
# Longer and shorter than ModernBERT's tiny window of 4 to each side; equal lengths side by side; a single token.
LENGTHS = (40, 23, 23, 9, 9, 9, 5, 1)


def documents(seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(6, 100, (length,), generator=generator) for length in LENGTHS]


def packed_features(denoiser, texts):
    row = torch.cat(texts)[None]
    return denoiser.features(row, where=torch.ones_like(row, dtype=torch.bool), segments=Segments(LENGTHS))


def alone(denoiser, text):
    row = text[None]
    everything = torch.ones_like(row, dtype=torch.bool)
    return denoiser.features(row, where=everything, attention_mask=everything)


@pytest.mark.parametrize("padding_allowed", [0.0, 0.5], ids=["equal lengths", "padded groups"])
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_and_alone_give_the_same_features(family, padding_allowed, monkeypatch):
    # What a GPU does, too: documents of different length share a call and are padded inside it.
    groups = Segments.groups
    monkeypatch.setattr(Segments, "groups", lambda self, _: groups(self, padding_allowed))
    denoiser, texts = tiny_denoiser(family, dtype=torch.float64), documents()
    with torch.no_grad():
        together = packed_features(denoiser, texts).split(LENGTHS)
        for text, part in zip(texts, together, strict=True):
            assert torch.allclose(part, alone(denoiser, text), atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_and_alone_give_the_same_loss_and_the_same_gradient(family):
    texts = documents()
    generator = torch.Generator().manual_seed(1)
    masks = [torch.rand(len(text), generator=generator) < 0.4 for text in texts]

    def batch(text, is_masked):
        x0, is_masked = text[None], is_masked[None]
        return MaskedBatch(x0, x0.masked_fill(is_masked, 4), torch.ones_like(is_masked), is_masked)

    def gradient(denoiser):
        return {name: param.grad.clone() for name, param in denoiser.named_parameters() if param.grad is not None}

    packed = tiny_denoiser(family, dtype=torch.float64)
    whole = batch(torch.cat(texts), torch.cat(masks))
    nll = masked_nll(
        packed.features(whole.xt, where=whole.is_masked, segments=Segments(LENGTHS)), packed.decoder, whole
    )
    nll.total.backward()

    single = tiny_denoiser(family, dtype=torch.float64)
    by_document = []
    for text, is_masked in zip(texts, masks, strict=True):
        part = batch(text, is_masked)
        seen = torch.ones_like(part.x0, dtype=torch.bool)
        one = masked_nll(single.features(part.xt, where=part.is_masked, attention_mask=seen), single.decoder, part)
        one.total.backward()
        by_document.append(one.token_nll)
    # Per token, hence per document.
    assert torch.allclose(nll.token_nll, torch.cat(by_document), atol=1e-12)
    expected = gradient(single)
    assert gradient(packed).keys() == expected.keys()
    for name, value in gradient(packed).items():
        assert torch.allclose(value, expected[name], atol=1e-10), name


@pytest.mark.parametrize("family", FAMILIES)
def test_a_document_does_not_see_its_neighbours(family):
    denoiser, texts = tiny_denoiser(family, dtype=torch.float64), documents()
    with torch.no_grad():
        before = packed_features(denoiser, texts).split(LENGTHS)
        texts[1] = (texts[1] + 17) % 90 + 6
        after = packed_features(denoiser, texts).split(LENGTHS)
    for place, (one, other) in enumerate(zip(before, after, strict=True)):
        assert torch.equal(one, other) == (place != 1)


def test_local_layers_of_a_packed_row_keep_their_window():
    # All layers local, one layer: a change reaches 4 positions to each side and no further.
    from diffutron.model import Denoiser
    from diffutron.testing import tiny_config

    torch.manual_seed(0)
    from transformers import AutoModelForMaskedLM

    config = tiny_config("modernbert", num_hidden_layers=1, layer_types=["sliding_attention"])
    denoiser = Denoiser(AutoModelForMaskedLM.from_config(config, dtype=torch.float64)).eval()
    texts = documents()
    with torch.no_grad():
        before = packed_features(denoiser, texts)[0 : LENGTHS[0]]
        texts[0][20] = (texts[0][20] + 17) % 90 + 6
        after = packed_features(denoiser, texts)[0 : LENGTHS[0]]
    changed = (before != after).any(dim=1).nonzero()[:, 0].tolist()
    assert changed == list(range(16, 25))


def test_groups_cover_every_document_once_and_in_order():
    for allowed in (0.0, 0.2, 1.0):
        found = list(Segments(LENGTHS).groups(allowed))
        assert [length for lengths in found for length in lengths] == list(LENGTHS)
        for lengths in found:
            assert max(lengths) * len(lengths) <= sum(lengths) * (1 + allowed)
    assert len(list(Segments(LENGTHS).groups(0.0))) == 5


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_of_padded_rows_is_transformers_own(family):
    denoiser = tiny_denoiser(family, dtype=torch.float64)
    row = documents()[0][None].expand(2, -1)
    seen = torch.arange(40) < torch.tensor([[40], [25]])
    with torch.no_grad():
        ours = denoiser.features(row, where=seen, attention_mask=seen)
        denoiser.model.set_attn_implementation("sdpa")
        theirs = denoiser.features(row, where=seen, attention_mask=seen)
    assert torch.equal(ours, theirs)


def test_saved_model_does_not_ask_for_our_attention(tmp_path):
    import json

    from diffutron.testing import tiny_folder

    config = json.loads((tiny_folder(tmp_path / "model") / "config.json").read_text())
    assert attention.NAME not in json.dumps(config)
