"""The loop: the loss falls, slices equal the whole, and nothing is lost when it is cut off."""

import contextlib
import itertools
import json
import math
import shutil
import signal

import numpy as np
import pytest
import torch

from diffutron.errors import CheckpointError, TrainingError
from diffutron.model import LoraSettings, add_lora
from diffutron.recipe import check
from diffutron.testing import TINY_TEXTS, tiny_codec, tiny_denoiser, tiny_folder
from diffutron.tokens.rows import encode_rows
from diffutron.training.average import WeightAverage
from diffutron.training.fit import Engine, Hooks, PlannedStep, fit
from diffutron.training.learning_rate import LearningRateSettings, learning_rate_factor
from diffutron.training.optimizer import OptimizerSet, OptimizerSettings, orthogonalise
from diffutron.training.recipe import TrainRecipe
from diffutron.training.run import execute, prepare_run
from diffutron.training.state import CheckpointStore, Cursor, Trained

CODEC = tiny_codec()


def first_step(engine, examples):
    return engine.accumulate(PlannedStep(0, 0, examples), progress=0.0)


ROWS = encode_rows(TINY_TEXTS * 3, CODEC, max_tokens=48)


def recipe(**changes) -> TrainRecipe:
    values = {
        "model": "tiny", "data": {"corpus": "nowhere", "max_tokens": 48},
        "objective": {"kind": "mlm", "mask_rate": 0.3},
        "optimizer": {"learning_rate": 3e-3}, "batch_tokens": 200, "micro_batch_tokens": 200, "train_tokens": 4000,
        "checkpoint_every_tokens": 1000, **changes,
    }  # fmt: skip
    return check(values, TrainRecipe, place="test")


def store(folder, keep=2, run="run", anyway=False) -> CheckpointStore:
    return CheckpointStore(folder, identity={"run": run}, keep=keep, anyway=anyway)


def weights(denoiser):
    return {name: param.detach().clone() for name, param in denoiser.named_parameters()}


def same(one, other) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("lora", [True, False])
def test_training_lowers_the_loss(tmp_path, kind, lora):
    denoiser = tiny_denoiser()
    if lora:
        add_lora(denoiser, LoraSettings(r=8, alpha=16), seed=0, base_name="tiny")
    frozen = {name: param.detach().clone() for name, param in denoiser.named_parameters() if not param.requires_grad}
    losses = []
    settings = recipe(
        optimizer={"kind": kind, "learning_rate": 1e-2, "matrix_learning_rate": 0.02}, train_tokens=20_000
    )
    hooks = Hooks(on_step=lambda record: losses.append(record.loss))
    fit(denoiser, ROWS, CODEC, settings, store(tmp_path), hooks=hooks)
    # Adapters cannot reach the embeddings of a random model, so they gain less.
    assert np.mean(losses[-10:]) < (0.96 if lora else 0.9) * np.mean(losses[:10])
    assert same(frozen, weights(denoiser))


def gradients(denoiser):
    return {name: param.grad for name, param in denoiser.named_parameters() if param.grad is not None}


@pytest.mark.parametrize("objective", ["mlm", "diffusion", "count"])
def test_accumulated_gradients_equal_one_big_batch(objective):
    examples = np.arange(12)
    found, losses = [], []
    for size in (48, 10_000):
        denoiser = tiny_denoiser(dtype=torch.float64)
        settings = recipe(micro_batch_tokens=size, objective={"kind": objective})
        losses.append(first_step(Engine(denoiser, ROWS, CODEC, settings), examples).loss)
        found.append(gradients(denoiser))
    assert losses[0] == pytest.approx(losses[1], abs=1e-12)
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert torch.allclose(gradient, found[1][name], atol=1e-12), name


@pytest.mark.parametrize("masking", [
    {}, {"times": "antithetic"}, {"complementary": True}, {"unit": "word"}, {"unit": "morpheme"},
    {"replace": "80-10-10"},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("family", ["bert", "modernbert", "xlm-roberta"])
def test_packed_step_equals_padded_step(family, masking):
    found, losses = [], []
    for layout, size in (("packed", 200), ("padded", 96)):
        denoiser = tiny_denoiser(family, dtype=torch.float64)
        settings = recipe(
            data={"corpus": "nowhere", "max_tokens": 48, "layout": layout}, masking=masking, micro_batch_tokens=size,
            objective={"kind": "mlm-range", "low": 0.2, "high": 0.8},
        )  # fmt: skip
        sums = first_step(Engine(denoiser, ROWS, CODEC, settings), np.arange(12))
        losses.append([sums.loss, sums.mask_rate, *(rate or 0.0 for rate in sums.loss_by_rate)])
        found.append(gradients(denoiser))
    assert losses[0] == pytest.approx(losses[1], abs=1e-12)
    for name, gradient in found[0].items():
        assert torch.allclose(gradient, found[1][name], atol=1e-10), name


def test_activation_checkpointing_changes_memory_and_nothing_else():
    found = []
    for again in (False, True):
        denoiser = tiny_denoiser(dtype=torch.float64)
        add_lora(denoiser, LoraSettings(r=4, alpha=4), seed=0, base_name="tiny")
        settings = recipe(activation_checkpointing=again)
        first_step(Engine(denoiser.train(), ROWS, CODEC, settings), np.arange(12))
        found.append(gradients(denoiser))
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert torch.allclose(gradient, found[1][name], atol=1e-12), name


def test_running_out_of_memory_halves_the_micro_batch_and_not_the_step(tmp_path, monkeypatch, caplog):
    expected = tiny_denoiser(dtype=torch.float64)
    fit(expected, ROWS, CODEC, recipe(train_tokens=600), store(tmp_path / "enough"))

    denoiser = tiny_denoiser(dtype=torch.float64)
    features = type(denoiser).features

    def small_machine(self, xt, **rest):
        if xt.numel() > 100:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return features(self, xt, **rest)

    monkeypatch.setattr(type(denoiser), "features", small_machine)
    cursor = fit(denoiser, ROWS, CODEC, recipe(train_tokens=600), store(tmp_path / "short"))
    assert cursor.micro_batch_tokens == 100
    assert "out of memory with micro-batches of 200 tokens; going on with 100, the step stays 200" in caplog.text
    for name, param in weights(denoiser).items():
        assert torch.allclose(param, weights(expected)[name], atol=1e-9), name
    # The next slice need not find out again.
    trained = Trained(denoiser, OptimizerSet(OptimizerSettings(), denoiser))
    assert store(tmp_path / "short").resume(trained).micro_batch_tokens == 100


def test_other_runtime_errors_are_not_taken_for_a_lack_of_memory(tmp_path, monkeypatch):
    denoiser = tiny_denoiser()

    def broken(self, xt, **rest):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(type(denoiser), "features", broken)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        fit(denoiser, ROWS, CODEC, recipe(), store(tmp_path))


def test_average_is_evaluated_saved_and_adopted_while_training_goes_on_from_the_weights(tmp_path):
    seen = []
    denoiser = tiny_denoiser()
    settings = recipe(average=0.9, train_tokens=2000)
    fit(
        denoiser,
        ROWS,
        CODEC,
        settings,
        store(tmp_path / "a"),
        hooks=Hooks(evaluate=lambda _: seen.append(weights(denoiser))),
    )
    plain = tiny_denoiser()
    fit(plain, ROWS, CODEC, recipe(train_tokens=2000), store(tmp_path / "b"))
    assert same(seen[-1], weights(denoiser))  # what was measured is what is saved
    [*_, newest] = sorted((tmp_path / "a").glob("step-*"))
    from safetensors.torch import load_file

    assert same(load_file(newest / "weights.safetensors"), weights(plain))  # training did not notice
    assert same(load_file(newest / "average.safetensors"), weights(denoiser))
    assert not same(weights(plain), weights(denoiser))


def test_weight_average_follows_its_formula():
    layer = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    torch.nn.init.zeros_(layer.weight)
    average = WeightAverage(layer, 0.5)
    expected = 0.0
    for step, value in enumerate([1.0, 3.0, -2.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0]):
        torch.nn.init.constant_(layer.weight, value)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    with average.applied():
        assert layer.weight.item() == pytest.approx(expected, abs=1e-12)
    assert layer.weight.item() == 4.0


@pytest.mark.parametrize("average", [None, 0.9], ids=["weights", "average"])
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_run_cut_at_any_step_ends_with_the_same_bits(tmp_path, kind, average):
    settings = recipe(optimizer={"kind": kind, "learning_rate": 3e-3}, average=average, masking={"times": "antithetic"})
    whole = tiny_denoiser()
    fit(whole, ROWS, CODEC, settings, store(tmp_path / "whole"))

    class Kill(Exception):
        pass

    def at(step):
        def stop(record):
            if record.step == step:
                raise Kill

        return Hooks(on_step=stop)

    for attempt, step in enumerate((3, 7, 8, 15, 10_000)):
        started = any((tmp_path / "cut").glob("step-*"))
        resumed = tiny_denoiser(seed=attempt if started else 0)  # whatever is in memory, the checkpoint decides
        with contextlib.suppress(Kill):
            cursor = fit(resumed, ROWS, CODEC, settings, store(tmp_path / "cut"), hooks=at(step))
    assert cursor.tokens >= 4000
    assert same(weights(whole), weights(resumed))


def test_interrupt_keeps_a_checkpoint(tmp_path):
    def interrupt(record):
        if record.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(tiny_denoiser(), ROWS, CODEC, recipe(), store(tmp_path), hooks=Hooks(on_step=interrupt))
    [kept] = tmp_path.glob("step-*")
    assert json.loads((kept / "state.json").read_text())["cursor"]["step"] == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_waits_for_the_end_of_the_step_and_the_run_goes_on_to_the_same_bits(tmp_path, number):
    def kill(record):
        if record.step == 4:
            signal.raise_signal(number)

    whole, cut = tiny_denoiser(), tiny_denoiser()
    fit(whole, ROWS, CODEC, recipe(), store(tmp_path / "whole"))
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        fit(cut, ROWS, CODEC, recipe(), store(tmp_path / "cut"), hooks=Hooks(on_step=kill))
    assert signal.getsignal(number) is before
    resumed = tiny_denoiser(seed=5)
    fit(resumed, ROWS, CODEC, recipe(), store(tmp_path / "cut"))
    assert same(weights(whole), weights(resumed))


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete", "state"])
def test_broken_newest_checkpoint_falls_back_to_the_one_before(tmp_path, damage, caplog):
    denoiser = tiny_denoiser()
    fit(denoiser, ROWS, CODEC, recipe(train_tokens=2500), store(tmp_path))
    older, newest = sorted(tmp_path.glob("step-*"))
    file = newest / ("state.json" if damage == "state" else "weights.safetensors")
    raw = bytearray(file.read_bytes())
    if damage == "delete":
        file.unlink()
    elif damage == "flip":
        raw[len(raw) // 2] ^= 1
        file.write_bytes(raw)
    else:
        file.write_bytes(raw[: len(raw) // 2])
    fresh = tiny_denoiser(seed=9)
    cursor = store(tmp_path).resume(Trained(fresh, OptimizerSet(OptimizerSettings(), fresh)))
    assert f"step-{cursor.step:07d}" == older.name
    assert "broken" in caplog.text


def test_checkpoint_of_another_run_is_refused(tmp_path):
    denoiser = tiny_denoiser()
    trained = Trained(denoiser, OptimizerSet(OptimizerSettings(), denoiser))
    trained.optimizers.prepare_state()
    store(tmp_path, run="one").save(Cursor(1, 10), trained)
    with pytest.raises(CheckpointError, match=r"another run: run was 'one' and is 'two'.*--resume anyway"):
        store(tmp_path, run="two").resume(trained)
    assert store(tmp_path, run="two", anyway=True).resume(trained) == Cursor(1, 10)


def test_a_checkpoint_from_before_the_first_update_can_be_resumed(tmp_path):
    denoiser = tiny_denoiser()
    store(tmp_path).save(Cursor(1, 10), Trained(denoiser, OptimizerSet(OptimizerSettings(kind="muon"), denoiser)))
    fresh = tiny_denoiser(seed=9)
    trained = Trained(fresh, OptimizerSet(OptimizerSettings(kind="muon"), fresh))
    assert store(tmp_path).resume(trained) == Cursor(1, 10)
    assert same(weights(fresh), weights(denoiser))


def test_memory_that_was_short_once_does_not_overrule_a_smaller_micro_batch():
    engine = Engine(tiny_denoiser(), ROWS, CODEC, recipe(micro_batch_tokens=96))
    assert [engine._micro_batch(limit) for limit in (None, 48, 200)] == [96, 48, 96]


def test_only_the_newest_checkpoints_stay(tmp_path):
    short = recipe(train_tokens=1900, checkpoint_every_tokens=300)
    cursor = fit(tiny_denoiser(), ROWS, CODEC, short, store(tmp_path / "two", keep=2))
    assert fit(tiny_denoiser(), ROWS, CODEC, short, store(tmp_path / "all", keep=100)) == cursor
    names, every = (sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("two", "all"))
    assert names == every[-2:]
    assert names[-1] == f"step-{cursor.step:07d}"


def test_loss_that_is_not_finite_three_times_stops_and_keeps_the_last_checkpoint(tmp_path):
    denoiser = tiny_denoiser()
    before = weights(denoiser)
    with torch.no_grad():
        denoiser.model.cls.predictions.bias[7] = math.nan
    bad = []
    with pytest.raises(TrainingError, match=r"not finite 3 times.*learning_rate"):
        fit(denoiser, ROWS, CODEC, recipe(), store(tmp_path), hooks=Hooks(on_bad_step=bad.append))
    assert [each.step for each in bad] == [1, 2, 3]
    assert all(math.isnan(each.loss) and each.examples for each in bad)
    del before["model.cls.predictions.bias"]
    assert same(before, weights(denoiser))


def bad_at(*steps):
    """A denoiser whose features are no numbers at some steps, and the list that tells which step comes next."""
    denoiser = tiny_denoiser()
    features, step = denoiser.features, [1]

    def broken(*arguments, **options):
        return features(*arguments, **options) * (math.nan if step[0] in steps else 1.0)

    denoiser.features = broken
    return denoiser, Hooks(on_step=lambda record: step.__setitem__(0, record.step + 1))


def test_a_bad_step_is_skipped_and_two_in_a_row_are_forgotten_after_a_good_one(tmp_path):
    denoiser, hooks = bad_at(2, 3, 5, 6)
    cursor = fit(denoiser, ROWS, CODEC, recipe(train_tokens=1600), store(tmp_path), hooks=hooks)
    assert cursor.step > 6
    assert all(param.isfinite().all() for param in denoiser.parameters())


def test_three_bad_steps_leave_the_checkpoint_before_them(tmp_path):
    denoiser, hooks = bad_at(5, 6, 7)
    with pytest.raises(TrainingError, match="not finite 3 times in a row"):
        fit(denoiser, ROWS, CODEC, recipe(checkpoint_every_tokens=300), store(tmp_path), hooks=hooks)
    fresh = tiny_denoiser(seed=9)
    cursor = store(tmp_path).resume(Trained(fresh, OptimizerSet(OptimizerSettings(), fresh)))
    assert 0 < cursor.step < 7
    assert all(param.isfinite().all() for param in fresh.parameters())


def test_records_count_tokens_progress_and_rate(tmp_path):
    records = []
    settings = recipe(learning_rate={"warmup_tokens": 1000, "decay": "linear"})
    fit(tiny_denoiser(), ROWS, CODEC, settings, store(tmp_path), hooks=Hooks(on_step=records.append))
    assert [record.step for record in records] == list(range(1, len(records) + 1))
    assert records[-1].progress == 1.0
    assert all(later.tokens > earlier.tokens for earlier, later in itertools.pairwise(records))
    rates = [record.learning_rate for record in records]
    assert 0 < rates[0] < max(rates) <= 3e-3
    assert rates[-1] < max(rates)


def test_learning_rate_warms_up_holds_and_falls():
    settings = LearningRateSettings(warmup_tokens=100, decay="1-sqrt", decay_share=0.2, floor=0.1)
    factor = [
        learning_rate_factor(settings, tokens=tokens, total_tokens=1000) for tokens in (0, 99, 500, 800, 850, 1000)
    ]
    assert factor == pytest.approx([0.01, 1.0, 1.0, 1.0, 0.1 + 0.9 * 0.5, 0.1], abs=1e-9)


def test_orthogonalised_update_has_singular_values_near_one():
    for shape in ((32, 32), (16, 64), (64, 16)):
        matrix = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        left, values, right = torch.linalg.svd(orthogonalise(matrix), full_matrices=False)
        assert values.min() > 0.3
        assert values.max() < 1.3
        # the same singular directions: U V' of the input is that of the output
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        assert torch.allclose((u @ v * (left @ right)).sum(), torch.tensor(float(min(shape)), dtype=torch.float64))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch.compile warns while it traces
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_compiled_layers_change_speed_and_nothing_else(family):
    found = []
    for compiled in (False, True):
        denoiser = tiny_denoiser(family, dtype=torch.float64)
        add_lora(denoiser, LoraSettings(r=4, alpha=4), seed=0, base_name="tiny")
        engine = Engine(denoiser.train(), ROWS, CODEC, recipe(compile=compiled))
        found.append((first_step(engine, np.arange(12)).loss, gradients(denoiser)))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-10)
    for name, gradient in found[0][1].items():
        assert torch.allclose(gradient, found[1][1][name], atol=1e-9), name


def test_memory_that_is_not_enough_for_one_text_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "texts.txt").write_text("\n\n".join(TINY_TEXTS), encoding="utf-8")
    source = {"path": str(tmp_path / "texts.txt"), "license": "MIT", "cleaning": "none", "filters": "none"}
    tiny_folder(tmp_path / "tiny")
    run = prepare_run(
        recipe(
            model=str(tmp_path / "tiny"),
            data={"build": {"sources": [source], "decontaminate": "none"}, "max_tokens": 48},
        ),
        tmp_path / "run",
    )

    def features(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(run.loaded.denoiser, "features", features)
    with pytest.raises(TrainingError, match="out of memory, even with one text at a time"):
        execute(run)


def test_a_part_of_a_pass_that_is_less_than_a_token_is_a_token():
    assert recipe(train_tokens=None, epochs=1e-9).total_tokens(1000) == 1
