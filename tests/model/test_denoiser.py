import pytest
import torch

from diffutron.model import LoraSettings, add_lora, load_model, merge_lora, save_adapter, save_model
from diffutron.model.families import encoder_linears
from diffutron.testing import tiny_codec, tiny_denoiser, tiny_folder, tiny_tokenizer

FAMILIES = ("bert", "modernbert", "xlm-roberta")


def rows(seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(6, 100, (3, 20), generator=generator)
    x[:, 0] = 0
    attention_mask = torch.arange(20) < torch.tensor([[20], [13], [7]])
    x[~attention_mask] = 1
    where = (torch.rand(3, 20, generator=generator) < 0.3) & attention_mask
    return x, attention_mask, where


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_at_chosen_positions_equal_full_logits(family):
    denoiser = tiny_denoiser(family, dtype=torch.float64)
    x, attention_mask, where = rows()
    with torch.no_grad():
        some = denoiser(x, attention_mask=attention_mask, where=where)
        everywhere = denoiser.model(input_ids=x, attention_mask=attention_mask.long()).logits
    assert torch.allclose(some, everywhere[where], atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_and_neighbours_do_not_change_a_row(family):
    denoiser = tiny_denoiser(family, dtype=torch.float64)
    x, attention_mask, where = rows()
    with torch.no_grad():
        together = denoiser(x, attention_mask=attention_mask, where=where)
        alone = denoiser(x[2:, :7], attention_mask=attention_mask[2:, :7], where=where[2:, :7])
    assert torch.allclose(together[-len(alone) :], alone, atol=1e-10)


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_adapts_every_encoder_linear_and_nothing_else(family):
    denoiser = tiny_denoiser(family)
    linears = encoder_linears(denoiser.model)
    shapes = [denoiser.model.get_submodule(name).weight.shape for name in linears]
    per_layer = {"bert": 6, "modernbert": 4, "xlm-roberta": 6}[family]
    assert len(linears) == per_layer * denoiser.model.config.num_hidden_layers

    add_lora(denoiser, LoraSettings(r=4, alpha=4), seed=0, base_name="tiny")
    trainable = {name for name, param in denoiser.named_parameters() if param.requires_grad}
    assert all("lora_" in name for name in trainable)
    assert sum(dict(denoiser.named_parameters())[name].numel() for name in trainable) == sum(
        4 * (out + into) for out, into in shapes
    )


def adapted(family: str, seed: int = 1):
    denoiser = tiny_denoiser(family)
    peft_model = add_lora(denoiser, LoraSettings(r=4, alpha=8), seed=0, base_name="base")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, param in denoiser.named_parameters():
            if "lora_B" in name:  # zero at the start: without this an adapter that is lost would go unnoticed
                param.copy_(torch.randn(param.shape, generator=generator) * 0.1)
    return denoiser, peft_model


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_model_gives_the_adapted_logits_and_keeps_head_and_tied_weights(family, tmp_path):
    from transformers import AutoModelForMaskedLM

    denoiser, peft_model = adapted(family)
    x, attention_mask, where = rows()
    with torch.no_grad():
        base = tiny_denoiser(family)(x, attention_mask=attention_mask, where=where)
        expected = denoiser(x, attention_mask=attention_mask, where=where)
    assert float((expected - base).abs().max()) > 0.1  # the adapter does something

    merge_lora(peft_model)
    save_model(tmp_path / "merged", denoiser, tiny_tokenizer(), {})
    # Plain transformers, on the class with the MLM head, finds every weight.
    model, info = AutoModelForMaskedLM.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    with torch.no_grad():
        logits = model.eval()(input_ids=x, attention_mask=attention_mask.long()).logits[where]
    assert torch.allclose(logits, expected, atol=1e-4)
    assert model.get_output_embeddings().weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_adapter_is_plain_peft_and_loads_merged_into_its_base(family, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForMaskedLM

    tiny_folder(tmp_path / "base", family)
    denoiser, peft_model = adapted(family)
    x, attention_mask, where = rows()
    with torch.no_grad():
        expected = denoiser(x, attention_mask=attention_mask, where=where)
    save_adapter(tmp_path / "adapter", peft_model, {"learned_end": True})
    config = (tmp_path / "adapter" / "adapter_config.json").read_text()
    assert '"base_model_name_or_path": "base"' in config
    (tmp_path / "adapter" / "adapter_config.json").write_text(config.replace('"base"', '"../base"'))

    plain = PeftModel.from_pretrained(AutoModelForMaskedLM.from_pretrained(tmp_path / "base"), tmp_path / "adapter")
    with torch.no_grad():
        logits = plain.eval()(input_ids=x, attention_mask=attention_mask.long()).logits[where]
        ours = load_model(str(tmp_path / "adapter")).denoiser(x, attention_mask=attention_mask, where=where)
    assert torch.allclose(logits, expected, atol=1e-4)
    assert torch.allclose(ours, expected, atol=1e-4)


def test_half_precision_on_disk_is_the_rounded_weights(tmp_path):
    denoiser = tiny_denoiser()
    save_model(tmp_path / "half", denoiser, tiny_tokenizer(), {}, dtype=torch.float16)
    loaded = load_model(str(tmp_path / "half")).denoiser
    for (name, param), (_, other) in zip(denoiser.named_parameters(), loaded.named_parameters(), strict=True):
        assert torch.equal(param.half().float(), other), name
    assert next(denoiser.parameters()).dtype == torch.float32  # what was saved is left as it was
    size = sum(file.stat().st_size for file in (tmp_path / "half").glob("*.safetensors"))
    assert size < 2.1 * sum(param.numel() for param in denoiser.parameters()) + 20_000  # tied weights once


def test_failed_save_leaves_the_old_model(tmp_path, monkeypatch):
    from diffutron.errors import StorageError
    from diffutron.model import checkpoint

    tiny_folder(tmp_path / "model", seed=0)
    before = sorted(path.name for path in (tmp_path / "model").iterdir())

    def full_disk(path, value):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_json", full_disk)
    with pytest.raises(StorageError, match="No space left"):
        save_model(tmp_path / "model", tiny_denoiser(seed=1), tiny_tokenizer(), {})
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_longest_row_is_what_the_positions_allow():
    codec = tiny_codec()
    for family in FAMILIES:
        denoiser = tiny_denoiser(family)
        size = denoiser.max_positions
        assert size == 64
        x = torch.full((1, size), codec.mask_id)
        everything = torch.ones_like(x, dtype=torch.bool)
        assert denoiser(x, attention_mask=everything, where=everything).shape == (size, len(codec))
