"""What lies on the hub loads as a folder does: a cache as the hub's client leaves it stands in for the network."""

import json
import shutil
import subprocess
import sys

import pytest
import torch

from diffutron.errors import ModelError
from diffutron.model import add_lora, load_model, save_adapter
from diffutron.model.checkpoint import resolve_adapter
from diffutron.model.lora import LoraSettings
from diffutron.testing import tiny_denoiser, tiny_folder

CODE = """
import json, sys
from diffutron.model import load_model
loaded = load_model(sys.argv[1], adapters=sys.argv[2:])
weight = next(value for name, value in loaded.denoiser.state_dict().items() if name.endswith("query.weight"))
print(json.dumps({"diffusion": loaded.diffusion, "sum": weight.double().sum().item(),
                  "template": loaded.tokenizer.chat_template}))
"""


def cached(home, repository, folder):
    """``folder`` as a repository that was fetched before."""
    place = home / "hub" / f"models--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0" * 40)
    shutil.copytree(folder, place / "snapshots" / ("0" * 40))


def loaded_from(home, *names):
    found = subprocess.run(
        [sys.executable, "-c", CODE, *names], capture_output=True, text=True, timeout=120,
        env={"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "PATH": ""},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def adapter_of(folder, base):
    peft_model = add_lora(tiny_denoiser("bert"), LoraSettings(r=4, alpha=4), seed=0, base_name=base)
    with torch.no_grad():
        for name, param in peft_model.named_parameters():
            if "lora_B" in name:
                param.add_(0.1)
    save_adapter(folder, peft_model, {"format": 1, "learned_end": True}, chat_template="{{ messages }}")
    return folder


def test_a_model_and_an_adapter_of_the_hub_bring_all_that_diffusion_needs(tmp_path):
    base, home = tiny_folder(tmp_path / "tiny", family="bert"), tmp_path / "home"
    (base / "diffusion_config.json").write_text('{"format": 1, "learned_end": false}')
    adapter = adapter_of(tmp_path / "adapter", "org/tiny")
    cached(home, "org/tiny", base)
    cached(home, "org/answers", adapter)
    plain, adapted = loaded_from(home, "org/tiny"), loaded_from(home, "org/answers")
    assert plain["diffusion"] == {"format": 1, "learned_end": False}
    assert adapted["diffusion"] == {"format": 1, "learned_end": True}
    assert adapted["template"] == "{{ messages }}"
    assert adapted["sum"] != plain["sum"]
    assert loaded_from(home, "org/tiny", "org/answers")["sum"] == adapted["sum"]
    here = load_model(str(base), adapters=[adapter]).denoiser.state_dict()
    weight = next(value for name, value in here.items() if name.endswith("query.weight"))
    assert weight.double().sum().item() == pytest.approx(adapted["sum"])


def test_a_runs_folder_is_the_model_that_it_made(tmp_path):
    base = tiny_folder(tmp_path / "tiny", family="bert")
    adapter = adapter_of(tmp_path / "run" / "adapter", str(base))
    one, other = (load_model(str(each)).denoiser.state_dict() for each in (adapter, tmp_path / "run"))
    assert all(one[name].equal(other[name]) for name in one)
    assert resolve_adapter(tmp_path / "run") == adapter
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="empty"):
        load_model(str(tmp_path / "empty"))
