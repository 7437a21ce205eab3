"""Two adapters as one: the model is the same."""

import importlib.util
from pathlib import Path

import torch

from diffutron.model import LoraSettings, add_lora, load_model, save_adapter, save_model
from diffutron.testing import tiny_codec, tiny_denoiser

SCRIPT = Path(__file__).parents[2] / "scripts" / "stack_adapters.py"


def trained_on(name, out, *, r, seed):
    peft_model = add_lora(load_model(name).denoiser, LoraSettings(r=r, alpha=2 * r), seed=seed, base_name=name)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, param in peft_model.named_parameters():
            if "lora_" in key:
                param.copy_(torch.randn(param.shape, generator=generator) * 0.1)
    save_adapter(out, peft_model, {})
    return str(out)


def test_two_adapters_in_one_are_the_upper_on_the_lower(tmp_path):
    spec = importlib.util.spec_from_file_location("stack_adapters", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    save_model(tmp_path / "base", tiny_denoiser(), tiny_codec().tokenizer, {})
    lower = trained_on(str(tmp_path / "base"), tmp_path / "lower", r=4, seed=1)
    upper = trained_on(lower, tmp_path / "upper", r=2, seed=2)
    module.stack(Path(lower), Path(upper), tmp_path / "both")
    row = torch.randint(6, 100, (2, 30), generator=torch.Generator().manual_seed(3))
    where = torch.ones_like(row, dtype=torch.bool)
    one, other, below = (load_model(str(name)).denoiser(row, where=where) for name in (tmp_path / "both", upper, lower))
    assert torch.allclose(one, other, atol=1e-4)
    assert not torch.allclose(one, below, atol=1e-2)
