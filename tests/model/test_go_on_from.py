"""An adapter can be trained further: the run starts where the other one ended, or says why it cannot."""

import json

import pytest
import torch

from diffutron.errors import ModelError
from diffutron.model import LoraSettings, add_lora, go_on_from, load_model, save_adapter, save_model
from diffutron.testing import tiny_codec, tiny_denoiser


@pytest.fixture
def places(tmp_path):
    """A base, and an adapter on it that has learned something."""
    base = tiny_denoiser()
    save_model(tmp_path / "base", base, tiny_codec().tokenizer, {})
    peft_model = adapter_on(tmp_path / "base", r=4)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, param in peft_model.named_parameters():
            if "lora_" in name:
                param.copy_(torch.randn(param.shape, generator=generator) * 0.1)
    save_adapter(tmp_path / "adapter", peft_model, {})
    return tmp_path


def adapter_on(base, *, r, alpha=4.0):
    return add_lora(
        load_model(str(base)).denoiser, LoraSettings(r=r, alpha=alpha), seed=0, base_name=str(base.resolve())
    )


def logits(denoiser):
    row = torch.randint(6, 100, (2, 30), generator=torch.Generator().manual_seed(2))
    return denoiser(row, where=torch.ones_like(row, dtype=torch.bool))


def test_the_first_step_sees_the_model_that_the_other_run_left(places):
    loaded = load_model(str(places / "base"))
    peft_model = add_lora(loaded.denoiser, LoraSettings(r=4, alpha=4), seed=5, base_name=str(places / "base"))
    fresh = logits(loaded.denoiser)
    go_on_from(peft_model, str(places / "adapter"), base=str(places / "base"))
    merged = load_model(str(places / "adapter")).denoiser
    assert torch.allclose(logits(loaded.denoiser), logits(merged), atol=1e-5)
    assert not torch.allclose(fresh, logits(merged), atol=1e-3)
    trained = {name for name, param in peft_model.named_parameters() if param.requires_grad}
    assert trained
    assert all("lora_" in name for name in trained)


@pytest.mark.parametrize(("shape", "says"), [
    ({"r": 8}, "lora.r=4"),
    ({"r": 4, "alpha": 8.0}, "lora.alpha=4"),
])  # fmt: skip
def test_adapter_of_another_shape_is_refused_with_the_setting_to_change(places, shape, says):
    with pytest.raises(ModelError, match=says):
        go_on_from(adapter_on(places / "base", **shape), str(places / "adapter"), base=str(places / "base"))


def test_adapter_that_is_scaled_otherwise_is_refused(places):
    # Its tensors would fit, and start the run from an update of another size.
    file = places / "adapter" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "use_rslora": True}))
    with pytest.raises(ModelError, match="use_rslora"):
        go_on_from(adapter_on(places / "base", r=4), str(places / "adapter"), base=str(places / "base"))


def test_adapter_on_another_model_is_refused(places):
    other = places / "other"
    save_model(other, tiny_denoiser(seed=9), tiny_codec().tokenizer, {})
    with pytest.raises(ModelError, match=r"adapts .*base, and the model to train is .*other; set model="):
        go_on_from(adapter_on(other, r=4), str(places / "adapter"), base=str(other))


def test_what_is_no_adapter_is_refused(places):
    with pytest.raises(ModelError, match="is no adapter"):
        go_on_from(adapter_on(places / "base", r=4), str(places / "base"), base=str(places / "base"))
