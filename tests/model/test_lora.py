"""Our way of computing LoRA gives PEFT's numbers."""

import peft
import pytest
import torch
from peft.tuners.lora import Linear as PeftLinear

from diffutron.model import LoraSettings, add_lora, lora, save_adapter
from diffutron.model.checkpoint import adapted_base
from diffutron.model.lora import LoraLinear, Way, cheapest_way
from diffutron.testing import tiny_denoiser

FAMILIES = ("bert", "modernbert", "xlm-roberta")


def adapted(family, *, dropout: float = 0.0):
    denoiser = tiny_denoiser(family, dtype=torch.float64)
    add_lora(denoiser, LoraSettings(r=6, alpha=9, dropout=dropout), seed=0, base_name="base")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, param in denoiser.named_parameters():
            if "lora_" in name:
                param.data = torch.randn(param.shape, generator=generator, dtype=torch.float64) * 0.1
    return denoiser.train()


def gradients(denoiser):
    row = torch.randint(6, 100, (2, 30), generator=torch.Generator().manual_seed(2))
    everything = torch.ones_like(row, dtype=torch.bool)
    logits = denoiser(row, where=everything, attention_mask=everything)
    logits.square().mean().backward()
    return logits.detach(), {name: param.grad for name, param in denoiser.named_parameters() if param.requires_grad}


@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_are_those_of_peft(family, way, monkeypatch):
    monkeypatch.setattr(lora, "cheapest_way", lambda *shape: way)
    ours, our_gradients = gradients(adapted(family))
    reference = adapted(family)
    layers = [module for module in reference.modules() if isinstance(module, LoraLinear)]
    assert layers
    for layer in layers:
        layer.__class__ = PeftLinear
    theirs, their_gradients = gradients(reference)
    assert torch.allclose(ours, theirs, atol=1e-12)
    assert our_gradients.keys() == their_gradients.keys()
    for name, gradient in their_gradients.items():
        assert float(gradient.abs().max()) > 0
        assert torch.allclose(our_gradients[name], gradient, atol=1e-10), name


def test_base_on_the_hub_at_a_revision_is_named_so_that_others_find_it(tmp_path):
    peft_model = add_lora(tiny_denoiser(), LoraSettings(r=2, alpha=2), seed=0, base_name="org/name@v2")
    save_adapter(tmp_path / "adapter", peft_model, {})
    config = peft.LoraConfig.from_pretrained(str(tmp_path / "adapter"))
    assert (config.base_model_name_or_path, config.revision) == ("org/name", "v2")
    assert adapted_base(tmp_path / "adapter") == "org/name@v2"


def test_dropout_takes_pefts_way(monkeypatch):
    # Dropout acts between x and A; merged, it would be lost without a word.
    monkeypatch.setattr(lora, "cheapest_way", lambda *shape: Way.MERGED)
    denoiser = adapted("bert", dropout=0.5)
    torch.manual_seed(0)
    one, _ = gradients(denoiser)
    torch.manual_seed(1)
    other, _ = gradients(denoiser)
    assert not torch.allclose(one, other)


def test_way_is_chosen_by_shapes_alone():
    # A resumed run must take the same way.
    assert cheapest_way(1, 768, 768, 256) is Way.THIN
    assert cheapest_way(4096, 768, 768, 256) is Way.MERGED
    assert cheapest_way(4096, 2304, 768, 256) is Way.MERGED_FORWARD
    assert cheapest_way(2048, 384, 384, 64) is Way.MERGED_FORWARD


@pytest.mark.parametrize("way", Way)
def test_operations_are_those_that_torch_counts(way, monkeypatch):
    from torch.utils.flop_counter import FlopCounterMode

    monkeypatch.setattr(lora, "cheapest_way", lambda *shape: way)
    torch.manual_seed(0)
    holder = torch.nn.Sequential(torch.nn.Linear(48, 80))
    layer = peft.get_peft_model(holder, peft.LoraConfig(r=5, target_modules=["0"])).base_model.model[0]
    layer.__class__ = LoraLinear
    x = torch.randn(1, 31, 48, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        layer(x).sum().backward()
    assert counter.get_total_flops() == sum(way.operations(31, 80, 48, 5))
