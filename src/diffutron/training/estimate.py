"""What a recipe costs, from shapes alone: parameters, memory, arithmetic. No weights are loaded."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForMaskedLM

from diffutron.corpus import open_corpus
from diffutron.corpus.read import read_all
from diffutron.diffusion.loss import CHUNK_BYTES
from diffutron.errors import InputError, ModelError
from diffutron.model import Denoiser, add_lora
from diffutron.model.attention import Segments
from diffutron.model.checkpoint import load_tokenizer
from diffutron.model.families import encoder_linears
from diffutron.model.known import config_of
from diffutron.model.lora import Way, cheapest_way
from diffutron.tokens.codec import TextCodec
from diffutron.training.corpus_rows import CorpusRows
from diffutron.training.machine import default_device
from diffutron.training.precision import choose_precision
from diffutron.training.recipe import TrainRecipe

SAMPLED_TEXTS = 2000


@dataclass(frozen=True)
class Memory:
    """Bytes at the widest moment of a step: all activations are kept, and the loss is being computed.

    Attributes:
        weights: in float32, adapters included.
        merged_lora: W + B A of the layers where adapters are merged, and bfloat16 copies of weights where products are
            narrow; kept for the backward pass.
        optimizer: its averages of what is trained, and the running average of the weights.
        activations: what the backward pass reads, for one micro-batch of full rows.
        logits: one chunk of them, and the gradient of the decoder's matrix where it is trained.
    """

    weights: int
    merged_lora: int
    gradients: int
    optimizer: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        return sum(asdict(self).values())


@dataclass(frozen=True)
class Estimate:
    """The size of a run.

    Attributes:
        total_parameters: the model's and the adapters'.
        flop_per_token: forward and backward, at the objective's mean mask rate, logits at hidden positions only.
        train_tokens: until the run ends; None where the recipe counts in epochs and its corpus cannot be counted here.
    """

    model: str
    total_parameters: int
    trainable_parameters: int
    trainable_percent: float
    memory: Memory
    micro_batch_tokens: int
    device: str
    precision: str
    mask_rate: float
    flop_per_token: float
    train_tokens: int | None

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "memory": {**asdict(self.memory), "total": self.memory.total}}


def estimate(recipe: TrainRecipe, *, corpus: Path | None = None, micro_batch_tokens: int | None = None) -> Estimate:
    """Count a recipe's parameters, memory and arithmetic, on this machine's device.

    Args:
        corpus: the folder of its corpus, if it is built; only a recipe that counts in epochs needs it.
        micro_batch_tokens: another size than the recipe's.

    Raises:
        ModelError: the model's shape cannot be had.
        InputError: rows are longer than the model's context.
    """
    tokens = micro_batch_tokens or recipe.micro_batch_tokens
    with torch.device("meta"):
        denoiser = Denoiser(AutoModelForMaskedLM.from_config(config_of(recipe.model)), name=recipe.model)
        check_length(recipe, denoiser)
        linears = [tuple(denoiser.model.get_parameter(f"{n}.weight").shape) for n in encoder_linears(denoiser.model)]
        if recipe.lora is not None:
            add_lora(denoiser, recipe.lora, seed=recipe.seed, base_name=recipe.model)
    total = sum(param.numel() for param in denoiser.parameters())
    trainable = sum(param.numel() for param in denoiser.parameters() if param.requires_grad)
    mask_rates = _mask_rates(recipe)
    return Estimate(
        model=recipe.model, total_parameters=total, trainable_parameters=trainable,
        trainable_percent=round(100 * trainable / total, 4),
        memory=_memory(recipe, denoiser, linears, tokens, max(mask_rates)), micro_batch_tokens=tokens,
        device=default_device().type, precision=choose_precision(recipe.precision, default_device()).name,
        mask_rate=round(mask_rates[0], 4),
        flop_per_token=sum(_flop_per_token(recipe, denoiser, linears, tokens, rate) for rate in mask_rates),
        train_tokens=recipe.train_tokens or _tokens_of_epochs(recipe, corpus),
    )  # fmt: skip


def check_length(recipe: TrainRecipe, denoiser: Denoiser) -> None:
    """Rows must fit into the model's context.

    Raises:
        InputError: they do not.
    """
    if recipe.data.max_tokens > denoiser.max_positions:
        raise InputError(
            f"data.max_tokens is {recipe.data.max_tokens}, but {recipe.model} reads at most "
            f"{denoiser.max_positions} tokens"
        )


def _mask_rates(recipe: TrainRecipe) -> list[float]:
    """Of each forward pass over a row, on average."""
    u = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    num_maskable = torch.full((1000,), recipe.data.max_tokens)
    objective = recipe.objective.build()
    plans = [objective.plan(u, num_maskable=num_maskable, progress=1.0)]
    if recipe.masking.complementary:
        plans.append(objective.complement(plans[0]))
    return [float(plan.mask_rate.mean()) for plan in plans]


def _memory(
    recipe: TrainRecipe, denoiser: Denoiser, linears: list[tuple[int, ...]], tokens: int, mask_rate: float
) -> Memory:
    matrices = {f"model.{name}.weight" for name in encoder_linears(denoiser.model)}
    averages = 0
    for name, param in denoiser.named_parameters():
        if param.requires_grad:
            # Muon keeps one average of a matrix, AdamW two of everything.
            averages += param.numel() * (1 if recipe.optimizer.kind == "muon" and name in matrices else 2)
            averages += param.numel() if recipe.average is not None else 0
    trained = sum(param.numel() for param in denoiser.parameters() if param.requires_grad)
    decoder = denoiser.decoder.weight
    vocabulary, width = decoder.shape
    hidden = max(1, round(tokens * mask_rate))
    kept, merged = _kept_for_backward(recipe, denoiser, set(linears), tokens, hidden)
    chunk = min(CHUNK_BYTES, 4 * vocabulary * hidden)
    return Memory(
        weights=4 * sum(param.numel() for param in denoiser.parameters()), merged_lora=merged, gradients=4 * trained,
        optimizer=4 * averages, activations=kept,
        logits=chunk + (4 * vocabulary * width if decoder.requires_grad else 0),
    )  # fmt: skip


def _kept_for_backward(
    recipe: TrainRecipe, denoiser: Denoiser, linears: set[tuple[int, ...]], tokens: int, hidden: int
) -> tuple[int, int]:
    """Bytes of activations and of merged or narrowed weights that autograd keeps, from a forward pass without data.

    Fake tensors have a shape, a type and a device, and nothing in them: torch takes the way that it would really take,
    whatever the encoder, and we add up what it keeps.
    """
    device = default_device()
    rows = max(1, tokens // recipe.data.max_tokens)
    length = recipe.data.max_tokens if tokens >= recipe.data.max_tokens else tokens
    kept: dict[int, Tensor] = {}
    with FakeTensorMode():
        own = _make_fake(denoiser, device)

        def note(tensor: Tensor) -> Tensor:
            place = tensor.untyped_storage()._cdata
            if place not in own:
                kept[place] = tensor
            return tensor

        with (
            choose_precision(recipe.precision, device).context(),
            torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        ):
            denoiser.train()
            xt = torch.zeros(1, rows * length, dtype=torch.long, device=device)
            # `where` would depend on data; as many positions, all at the front, cost the same.
            states = denoiser.model.base_model(
                input_ids=xt, position_ids=Segments((length,) * rows).positions.to(device),
                segments=Segments((length,) * rows),
            ).last_hidden_state  # fmt: skip
            denoiser.family.transform(denoiser.model, states[0, : min(hidden, rows * length)])
        sizes = [(tuple(tensor.shape), tensor.untyped_storage().nbytes()) for tensor in kept.values()]
    # Weights have the shape of a linear layer, or of its transpose; activations have a row for each position.
    copies = [
        size for shape, size in sizes
        if (shape in linears or shape[::-1] in linears) and shape[0] not in (rows * length, hidden)
    ]  # fmt: skip
    weights, activations = sum(copies), sum(size for _, size in sizes) - sum(copies)
    if recipe.activation_checkpointing:
        # Only what enters each layer is kept, and one layer at a time has all the rest.
        layers = len(denoiser.layers)
        width = int(denoiser.model.config.hidden_size)
        return activations // layers + layers * rows * length * width * 4, weights // layers
    return activations, weights


def _make_fake(denoiser: Denoiser, device: torch.device) -> set[int]:
    """Put empty tensors in the place of parameters and buffers; their storages."""
    made: dict[int, Tensor] = {}
    for module in denoiser.modules():
        tables: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for table in tables:
            for name, tensor in table.items():
                if tensor is None:
                    continue
                if id(tensor) not in made:
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
                    is_param = isinstance(tensor, nn.Parameter)
                    made[id(tensor)] = nn.Parameter(fake, requires_grad=tensor.requires_grad) if is_param else fake
                table[name] = made[id(tensor)]
    return {tensor.untyped_storage()._cdata for tensor in made.values()}


def _flop_per_token(
    recipe: TrainRecipe, denoiser: Denoiser, linears: list[tuple[int, ...]], tokens: int, mask_rate: float
) -> float:
    """Two operations a weight and pass: forward, gradient of the input, and of the weight where it is trained."""
    config = denoiser.model.config
    width, vocabulary = int(config.hidden_size), int(config.vocab_size)
    output = (width * width + width * vocabulary) * mask_rate  # the head's transform and the decoder
    # Scores and their sum of values: two products of length x width, each with two gradients.
    attention = 12 * recipe.data.max_tokens * width * int(config.num_hidden_layers)
    if recipe.lora is None:
        flop = 6 * (sum(out * into for out, into in linears) + output) + attention
    else:
        r = recipe.lora.r
        flop = 4 * output + attention
        for out, into in linears:
            way = cheapest_way(tokens, out, into, r) if not recipe.lora.dropout else Way.THIN
            flop += sum(way.operations(tokens, out, into, r)) / tokens
    return float(flop)


def _tokens_of_epochs(recipe: TrainRecipe, folder: Path | None) -> int | None:
    """Epochs times the corpus's tokens, judged by an even sample of its texts; None without corpus or tokenizer."""
    if recipe.epochs is None or folder is None or not (folder / "report.json").is_file():
        return None
    corpus = open_corpus(folder)
    try:
        tokenizer = load_tokenizer(recipe.model)
    except ModelError:
        return None
    num_texts = int(corpus.report["train"]) + int(corpus.report["copies"])  # a text stands there as often as it weighs
    stride = max(1, num_texts // SAMPLED_TEXTS)
    records = list(itertools.islice(read_all(corpus.train), 0, None, stride))
    maker = CorpusRows.of(recipe.data, TextCodec(tokenizer), corpus, seed=recipe.seed)
    tokens = sum(map(len, maker.make(records)))
    return round(recipe.epochs * tokens * num_texts / max(1, len(records)))
