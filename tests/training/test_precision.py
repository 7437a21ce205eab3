import pytest
import torch

from diffutron.training import precision
from diffutron.training.precision import choose_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(("choice", "able", "name"), [
    ("auto", True, "float32"),  # a CPU run can be repeated bit by bit
    ("auto", False, "float32"),
    ("float32", True, "float32"),
    ("bfloat16", True, "bfloat16"),
    ("bfloat16", False, "float32"),
])  # fmt: skip
def test_bfloat16_is_used_where_it_is_asked_for_and_the_hardware_has_it(choice, able, name, monkeypatch):
    monkeypatch.setattr(precision, "gains_from_bfloat16", lambda device: able)
    chosen = choose_precision(choice, CPU)
    assert chosen.name == name
    assert name in chosen.note
    assert len(chosen.note.splitlines()) == 1


def test_gpu_with_bfloat16_takes_it_by_itself(monkeypatch):
    monkeypatch.setattr(precision, "gains_from_bfloat16", lambda device: True)
    assert choose_precision("auto", torch.device("cuda")).name == "bfloat16"


def test_recipe_that_asks_for_more_than_the_hardware_has_is_told_so(monkeypatch):
    monkeypatch.setattr(precision, "gains_from_bfloat16", lambda device: False)
    assert "no faster in bfloat16" in choose_precision("bfloat16", CPU).note


@pytest.mark.parametrize(("units", "speeds", "gains"), [
    (True, {torch.bfloat16: 200e9, torch.float32: 80e9}, True),
    (True, {torch.bfloat16: 87e9, torch.float32: 160e9}, False),  # a Xeon whose AMX is hidden
    (False, {}, False),  # not tried out: it would be emulated
])  # fmt: skip
def test_cpu_with_bfloat16_units_is_tried_out(units, speeds, gains, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": units})
    monkeypatch.setattr(precision, "matrix_peak", lambda device, *, dtype, seconds: speeds[dtype])
    assert precision.gains_from_bfloat16.__wrapped__(CPU) is gains


def test_bfloat16_products_leave_loss_and_gradient_near_float32(monkeypatch):
    import numpy as np

    from diffutron.model import LoraSettings, add_lora
    from diffutron.recipe import check
    from diffutron.testing import TINY_TEXTS, tiny_codec, tiny_denoiser
    from diffutron.tokens.rows import encode_rows
    from diffutron.training.fit import Engine, PlannedStep
    from diffutron.training.recipe import TrainRecipe

    monkeypatch.setattr(precision, "gains_from_bfloat16", lambda device: True)  # emulated, where the machine has none
    codec = tiny_codec()
    rows = encode_rows(TINY_TEXTS, codec, max_tokens=48)
    found = []
    for choice in ("float32", "bfloat16"):
        denoiser = tiny_denoiser()
        add_lora(denoiser, LoraSettings(r=4, alpha=4), seed=0, base_name="tiny")
        values = {"model": "tiny", "data": {"corpus": "nowhere", "max_tokens": 48}, "train_tokens": 10,
                  "objective": {"kind": "mlm", "mask_rate": 0.4}, "precision": choice}  # fmt: skip
        engine = Engine(denoiser, rows, codec, check(values, TrainRecipe, place="test"))
        loss = engine.accumulate(PlannedStep(0, 0, np.arange(8)), progress=0.0).loss
        gradient = torch.cat([param.grad.ravel() for param in denoiser.parameters() if param.grad is not None])
        found.append((loss, gradient))
    assert found[0][0] != found[1][0]  # it did compute in another precision
    assert found[1][0] == pytest.approx(found[0][0], rel=0.01)
    assert torch.cosine_similarity(found[0][1], found[1][1], dim=0) > 0.99


def test_workers_that_found_different_things_of_their_cpus_all_take_float32(monkeypatch):
    from diffutron.recipe import check
    from diffutron.testing import TINY_TEXTS, tiny_codec, tiny_denoiser
    from diffutron.tokens.rows import encode_rows
    from diffutron.training.fit import Engine
    from diffutron.training.recipe import TrainRecipe
    from diffutron.training.workers import Workers

    class OneOfTwo(Workers):
        size = 2

        def total(self, numbers):
            return [float(number) for number in numbers]  # the other one adds nothing

    monkeypatch.setattr(precision, "gains_from_bfloat16", lambda device: True)
    values = {"model": "tiny", "data": {"corpus": "nowhere", "max_tokens": 48}, "train_tokens": 10,
              "objective": {"kind": "mlm"}, "precision": "bfloat16"}  # fmt: skip
    codec = tiny_codec()
    rows, recipe = encode_rows(TINY_TEXTS, codec, max_tokens=48), check(values, TrainRecipe, place="test")
    assert Engine(tiny_denoiser(), rows, codec, recipe).precision.name == "bfloat16"
    assert Engine(tiny_denoiser(), rows, codec, recipe, OneOfTwo()).precision.name == "float32"
