"""The published model, exactly: mmBERT-base's shape with random weights and the real Gemma 2 tokenizer."""

import json
from pathlib import Path

import pytest
import torch

from diffutron.model.known import known_config
from diffutron.recipe import load_recipe
from diffutron.training.estimate import estimate
from diffutron.training.recipe import TrainRecipe

ROOT = Path(__file__).parents[2]
GEMMA = ROOT / ".cache" / "gemma"


def test_estimate_prints_the_published_share_of_trainable_parameters():
    result = estimate(load_recipe(ROOT / "recipes" / "cpt.yaml", TrainRecipe))
    assert result.total_parameters == 361_853_440
    assert result.trainable_parameters == 54_067_200
    assert result.trainable_percent == 14.9417


def test_known_shape_is_the_published_one():
    config = known_config("jhu-clsp/mmBERT-base")
    with torch.device("meta"):
        from transformers import AutoModelForMaskedLM

        model = AutoModelForMaskedLM.from_config(config)
    assert sum(param.numel() for param in model.parameters()) == 307_786_240
    kinds = [layer.attn.layer_type if hasattr(layer.attn, "layer_type") else None for layer in model.model.layers]
    assert config.layer_types.count("full_attention") == 8, kinds
    for kind in ("full_attention", "sliding_attention"):
        assert config.rope_parameters[kind]["rope_theta"] == 160_000


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder laid out as `diffutron/DiffutronLM-0.3B-Base` is published: plain ModernBertForMaskedLM, float32."""
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("published") / "DiffutronLM-0.3B-Base"
    with torch.device("meta"):
        model = AutoModelForMaskedLM.from_config(known_config("jhu-clsp/mmBERT-base"))
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, param in model.named_parameters():
            # norms at one, the rest small and random
            param.fill_(1.0) if "norm" in name else param.normal_(0.0, 0.02, generator=generator)
    for module in model.modules():
        if hasattr(module, "rope_init_fn") or type(module).__name__ == "ModernBertRotaryEmbedding":
            module.__init__(config=model.config)
    model.tie_weights()
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(GEMMA)
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_encode_train_save_merge_load_fill_and_generate(published, tmp_path):
    from transformers import AutoModelForMaskedLM

    from diffutron.api import DiffusionLM
    from diffutron.corpus import build_corpus
    from diffutron.model import load_model, save_model
    from diffutron.testing import PLAIN_CORPUS, TINY_TEXTS
    from diffutron.training.run import execute, prepare_run

    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in TINY_TEXTS))
    recipe = load_recipe(ROOT / "recipes" / "cpt.yaml", TrainRecipe, [
        f"model={published}", f"data={{corpus: {tmp_path / 'corpus'}, max_tokens: 512}}",
        "train_tokens=100", "epochs=null", "batch_tokens=64", "learning_rate={}", "optimizer.learning_rate=1e-2",
    ])  # fmt: skip
    from diffutron.corpus import CorpusSettings, SourceSettings

    build_corpus(CorpusSettings(sources=[SourceSettings(path=texts)], heldout_share=0.0, **PLAIN_CORPUS),
                 tmp_path / "corpus")  # fmt: skip
    run = prepare_run(recipe, tmp_path / "run")
    assert (run.parameters, run.trainable) == (361_853_440, 54_067_200)
    assert run.codec.mask_id == 4
    records = []
    adapter = execute(run, on_record=records.append)
    assert len(records) >= 2
    assert all(record["loss"] < 30 for record in records)

    ids = torch.tensor([[run.codec.start_id, *run.codec.encode(TINY_TEXTS[0])]])
    with torch.no_grad():
        adapted = run.loaded.denoiser.model(input_ids=ids).logits
        merged = load_model(str(adapter))
        save_model(tmp_path / "merged", merged.denoiser, merged.tokenizer, merged.diffusion)
        del merged
        plain, info = AutoModelForMaskedLM.from_pretrained(tmp_path / "merged", output_loading_info=True)
        difference = float((plain.eval()(input_ids=ids).logits - adapted).abs().max())
        base = AutoModelForMaskedLM.from_pretrained(published).eval()(input_ids=ids).logits
    assert not info["missing_keys"]
    assert float((base - adapted).abs().max()) > 1e-3  # training changed something
    assert difference < 1e-4
    del plain

    lm = DiffusionLM(load_model(str(tmp_path / "merged")))
    text = "Ankara, Türkiye'nin [MASK]dir."
    for way in lm.fill(text, top_k=3):
        assert way.text == text.replace("[MASK]", way.tokens[0])
    [completion] = lm.generate("Bir varmış bir yokmuş", max_new_tokens=8, steps=4)
    assert completion.num_steps == 4
    assert completion.text.startswith("Bir varmış bir yokmuş")
    assert "<" not in completion.completion or "<mask>" not in completion.completion


@pytest.mark.slow
def test_published_folder_works_unchanged_as_model(published, cli):
    out, _ = cli("fill", "Bugün [MASK] çok güzel.", "--model", published, "--json")
    assert len(json.loads(out)) == 5
