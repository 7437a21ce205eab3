"""What a run costs, against numbers worked out by hand and what torch counts while it really computes."""

import json
import mmap

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForMaskedLM

from diffutron.corpus import CorpusSettings, SourceSettings, build_corpus, read_texts
from diffutron.diffusion.loss import CHUNK_BYTES
from diffutron.errors import InputError
from diffutron.model import Denoiser, add_lora
from diffutron.model.known import config_of
from diffutron.recipe import check
from diffutron.testing import PLAIN_CORPUS, TINY_TEXTS, tiny_codec, tiny_config, tiny_folder, tiny_tokenizer
from diffutron.tokens.rows import Rows, encode_rows
from diffutron.training.estimate import estimate
from diffutron.training.fit import Engine, PlannedStep
from diffutron.training.machine import PeakMemory, matrix_peak
from diffutron.training.measure import measure, random_model
from diffutron.training.recipe import TrainRecipe

V, D, F = len(tiny_tokenizer()), 32, 48
LINEARS = 2 * [(D, D), (D, D), (D, D), (D, D), (F, D), (D, F)]
TOKENS, LENGTH = 192, 48


@pytest.fixture(scope="module", params=["bert", "modernbert", "xlm-roberta"])
def any_family(tmp_path_factory, request):
    return tiny_folder(tmp_path_factory.mktemp("models") / request.param, request.param)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("models") / "bert")


def recipe(model, **changes) -> TrainRecipe:
    values = {
        "model": str(model), "data": {"corpus": "nowhere", "max_tokens": LENGTH}, "lora": changes.pop("lora", None),
        "objective": {"kind": "mlm", "mask_rate": 0.25}, "batch_tokens": TOKENS, "micro_batch_tokens": TOKENS,
        "epochs": None if "train_tokens" in changes else 1, **changes,
    }  # fmt: skip
    return check(values, TrainRecipe, place="test")


def rows(count=TOKENS // LENGTH) -> Rows:
    tokens = np.random.default_rng(0).integers(10, V, count * LENGTH, dtype=np.int32)
    return Rows(tokens, np.arange(count + 1) * LENGTH)


def engine(settings: TrainRecipe) -> Engine:
    denoiser = Denoiser(random_model(config_of(settings.model), torch.device("cpu")))
    if settings.lora is not None:
        add_lora(denoiser, settings.lora, seed=0, base_name="tiny")
    denoiser.train()
    return Engine(denoiser, rows(), tiny_codec(), settings)


def test_full_training_by_hand(bert):
    embeddings = V * D + 64 * D + 2 * D + 2 * D
    layer = 4 * (D * D + D) + 2 * D + (D * F + F) + (F * D + D) + 2 * D
    head = D * D + D + 2 * D + V  # the decoder's matrix is that of the embeddings
    total = embeddings + 2 * layer + head
    found = estimate(recipe(bert))
    assert (found.total_parameters, found.trainable_parameters) == (total, total)
    assert found.memory.weights == found.memory.gradients == 4 * total
    assert found.memory.optimizer == 8 * total
    assert found.memory.merged_lora == 0
    assert found.memory.logits == 4 * V * 48 + 4 * V * D  # a quarter of 192 positions is hidden
    assert found.memory.total == sum(
        getattr(found.memory, part) for part in ("weights", "gradients", "optimizer", "activations", "logits")
    )


def test_lora_by_hand(bert):
    r = 4
    adapters = sum(r * (out + into) for out, into in LINEARS)
    found = estimate(recipe(bert, lora={"r": r}))
    assert found.trainable_parameters == adapters
    assert found.memory.gradients == 4 * adapters
    assert found.memory.optimizer == 8 * adapters
    assert found.memory.logits == 4 * V * 48


def test_muon_keeps_one_average_of_a_matrix_and_a_running_average_is_one_more(bert):
    matrices = sum(out * into for out, into in LINEARS)
    adamw, muon, averaged = (
        estimate(recipe(bert, **changes)).memory.optimizer
        for changes in ({}, {"optimizer": {"kind": "muon"}}, {"average": 0.99})
    )
    assert muon == adamw - 4 * matrices
    assert averaged == adamw * 3 / 2


def test_logits_are_never_more_than_a_chunk():
    published = check(
        {"model": "jhu-clsp/mmBERT-base", "data": {"corpus": "nowhere"}, "objective": {"kind": "mlm"}, "epochs": 1,
         "lora": {"r": 256}, "micro_batch_tokens": 8192}, TrainRecipe, place="test",
    )  # fmt: skip
    found = estimate(published)
    assert found.memory.logits == CHUNK_BYTES < 512 * 2**20
    # 22 layers of Wqkv, Wo, Wi and Wo, all merged at this size; the first layer's Wqkv needs no gradient of its input,
    # so autograd does not keep it.
    kept = 22 * (2304 * 768 + 768 * 768 + 2304 * 768 + 768 * 1152) - 2304 * 768
    assert found.memory.merged_lora == 4 * kept
    assert found.train_tokens is None


@pytest.mark.parametrize("lora", [None, {"r": 2}, {"r": 30}])
def test_autograd_keeps_as_many_bytes_as_estimated(any_family, lora):
    settings = recipe(any_family, lora=lora)
    runner = engine(settings)
    own = {each.untyped_storage().data_ptr() for each in [*runner.denoiser.parameters(), *runner.denoiser.buffers()]}
    kept = {}

    def note(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        runner.accumulate(PlannedStep(0, 0, np.arange(len(runner.rows))), progress=0.0)
    really = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    found = estimate(settings).memory
    assert found.activations + found.merged_lora == pytest.approx(really, rel=0.05)
    assert (found.merged_lora > 0) == (lora is not None)  # so many tokens pay for the sum


def test_activation_checkpointing_keeps_less(bert):
    found = [estimate(recipe(bert, activation_checkpointing=each)).memory.activations for each in (False, True)]
    assert found[1] < 0.75 * found[0]


@pytest.mark.parametrize("lora", [None, {"r": 2}, {"r": 30}])
@pytest.mark.parametrize("complementary", [False, True])
def test_arithmetic_is_what_torch_counts(bert, lora, complementary):
    if complementary:
        low = {"kind": "mlm", "mask_rate": 0.15}
        settings = recipe(bert, lora=lora, objective=low, masking={"complementary": True})
    else:
        settings = recipe(bert, lora=lora, objective={"kind": "mlm", "mask_rate": 1.0})
    runner = engine(settings)
    with FlopCounterMode(display=False) as counter:
        runner.accumulate(PlannedStep(0, 0, np.arange(len(runner.rows))), progress=0.0)
    counted = counter.get_flop_counts()["Global"]
    products = sum(flop for operation, flop in counted.items() if "attention" not in str(operation))
    found = estimate(settings)
    passes = 2 if complementary else 1
    expected = found.flop_per_token - passes * 12 * LENGTH * D * 2  # fused attention recomputes its scores
    if lora is not None:
        # The first layer's three products of a frozen input have no gradient of it.
        thin = lora["r"] == 2
        expected -= passes * 3 * (2 * D * D + (2 * D * lora["r"] if thin else 0))
    # <s> of each row is never hidden, and rates are drawn.
    assert products / TOKENS == pytest.approx(expected, rel=0.03)


def test_tokens_of_epochs_are_counted_where_the_corpus_is_built(bert, tmp_path):
    texts = tmp_path / "texts.jsonl"
    texts.write_text(
        "".join(json.dumps({"text": f"{text} {number}"}) + "\n" for number in range(9) for text in TINY_TEXTS)
    )
    corpus = build_corpus(
        CorpusSettings(sources=[SourceSettings(path=texts)], heldout_share=0.2, **PLAIN_CORPUS), tmp_path / "corpus"
    )
    real = int(encode_rows(read_texts(corpus.train), tiny_codec(), max_tokens=20).lengths.sum())
    data = {"corpus": str(corpus.folder), "max_tokens": 20}
    assert estimate(recipe(bert, data=data, epochs=2.5), corpus=corpus.folder).train_tokens == round(2.5 * real)
    heavy = build_corpus(
        CorpusSettings(sources=[SourceSettings(path=texts, weight=3)], heldout_share=0.2, **PLAIN_CORPUS),
        tmp_path / "heavy",
    )
    data = {"corpus": str(heavy.folder), "max_tokens": 20}
    assert estimate(recipe(bert, data=data, epochs=1), corpus=heavy.folder).train_tokens == 3 * real
    assert estimate(recipe(bert, data=data), corpus=tmp_path / "nowhere").train_tokens is None
    assert estimate(recipe(bert, data=data, train_tokens=77), corpus=corpus.folder).train_tokens == 77


def test_rows_longer_than_the_context_are_refused(bert):
    with pytest.raises(InputError, match=r"data.max_tokens is 65, but .* reads at most 64 tokens"):
        estimate(recipe(bert, data={"corpus": "nowhere", "max_tokens": 65}))


@pytest.mark.parametrize("family", ["bert", "modernbert", "xlm-roberta"])
def test_random_model_has_the_shape_and_the_constants_of_a_real_one(family):
    config = tiny_config(family)
    real, made = AutoModelForMaskedLM.from_config(config), random_model(config, torch.device("cpu"))
    shapes = [{name: param.shape for name, param in model.named_parameters()} for model in (real, made)]
    assert shapes[0] == shapes[1]
    assert sum(param.numel() for param in real.parameters()) == sum(param.numel() for param in made.parameters())
    buffers = [dict(model.named_buffers()) for model in (real, made)]
    assert buffers[0].keys() == buffers[1].keys()
    assert all(torch.equal(buffers[0][name], buffers[1][name]) for name in buffers[0])
    ids = torch.arange(10, 30)[None]
    assert made(input_ids=ids).logits.isfinite().all()


@pytest.mark.parametrize("changes", [{}, {"lora": {"r": 4}}, {"masking": {"unit": "word"}}])
def test_measurement_is_of_the_recipe(bert, changes):
    settings = recipe(bert, train_tokens=10**9, **changes)
    expected = estimate(settings)
    said = []
    found = measure(settings, expected, seconds=4.0, on_progress=said.append)
    assert found.steps >= 1
    # As many rows as the time allows: on a busy machine not all.
    assert found.micro_batch_tokens in range(LENGTH, TOKENS + 1, LENGTH)
    at_size = expected if found.micro_batch_tokens == TOKENS else estimate(
        settings, micro_batch_tokens=found.micro_batch_tokens
    )  # fmt: skip
    assert found.estimated_bytes == at_size.memory.total
    assert found.hours == pytest.approx(10**9 / found.tokens_per_second / 3600)
    assert 0 < found.share_of_peak < 1
    assert said[0] == "matrix peak"


def test_a_row_that_takes_all_the_time_is_the_measurement(bert):
    found = measure(recipe(bert), estimate(recipe(bert)), seconds=0.1)
    assert (found.steps, found.micro_batch_tokens, found.hours) == (1, LENGTH, None)


def test_peak_memory_is_what_was_held_for_a_moment():
    # From the system itself: a process that trained before may have kept what its tensors gave back.
    with PeakMemory(torch.device("cpu")) as memory, mmap.mmap(-1, 200_000_000) as block:
        np.frombuffer(block, dtype=np.uint8).reshape(-1)[:] = 1
        torch.randn(800, 800) @ torch.randn(800, 800)
    # Other memory of this process may be given back in the same moment.
    assert 150e6 < memory.bytes < 300e6


def test_matrix_peak_is_above_what_a_product_reaches_here():
    assert matrix_peak(torch.device("cpu"), seconds=0.3) > 1e9
