"""The published recipes run on small sets, go on where they were cut off, and leave what a chat needs."""

import json
from pathlib import Path

import pytest
import yaml

from diffutron.api import load
from diffutron.corpus.conversations import read_conversations
from diffutron.errors import RecipeError
from diffutron.recipe import check, load_recipe
from diffutron.testing import TINY_TEXTS, tiny_folder
from diffutron.tokens.chat import TAGS, TEMPLATE
from diffutron.tokens.rows import plan_epoch
from diffutron.training.recipe import TrainRecipe
from diffutron.training.run import execute, prepare_run

LLAMA_TURK = [{"instruction": f"{number}. soru nedir?", "input": text if number % 2 else "", "output": text.split()[0]}
              for number, text in enumerate(TINY_TEXTS * 4)]  # fmt: skip
INSTRUC_TURCA = [{"Input": each["instruction"], "Output": each["output"]} for each in LLAMA_TURK]


def write(path, records):
    path.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in records), encoding="utf-8")
    return path


def recipe_of(name, source, **changes):
    values = yaml.safe_load(Path(f"recipes/{name}.yaml").read_text(encoding="utf-8"))
    values["data"]["max_tokens"] = 64
    values["data"]["build"]["sources"] = [{"path": str(source), "kind": "conversations"}]
    values["data"]["build"]["min_characters"] = 3
    values = {
        **values,
        "batch_tokens": 400,
        "epochs": None,
        "train_tokens": 1600,
        "checkpoint_every_tokens": 400,
        **changes,
    }
    return check(values, TrainRecipe, place=name)


def test_both_published_stages_run_and_the_second_goes_on_from_the_first(tmp_path):
    tiny_folder(tmp_path / "base")
    one = recipe_of("sft-1", write(tmp_path / "one.jsonl", LLAMA_TURK), model=str(tmp_path / "base"))
    first = execute(prepare_run(one, tmp_path / "sft-1"))
    assert (first / "chat_template.jinja").read_text("utf-8") == TAGS
    two = recipe_of("sft-2", write(tmp_path / "two.jsonl", INSTRUC_TURCA), model=str(first))
    second = execute(prepare_run(two, tmp_path / "sft-2"))
    model = load(str(second))
    assert model.tokenizer.chat_template == TAGS
    assert "[/Answer]" not in model.chat("Soru nedir?", max_new_tokens=8).text
    weights = [load(str(each)).denoiser.state_dict() for each in (tmp_path / "base", first, second)]
    name = next(iter(weights[0]))
    assert not weights[0][name].equal(weights[1][name])
    assert not weights[1][name].equal(weights[2][name])


def test_a_run_that_was_cut_off_ends_with_the_same_weights(tmp_path):
    tiny_folder(tmp_path / "base")
    recipe = recipe_of("sft-1", write(tmp_path / "one.jsonl", LLAMA_TURK), model=str(tmp_path / "base"),
                       lora={"r": 4, "alpha": 4})  # fmt: skip
    whole = execute(prepare_run(recipe, tmp_path / "whole"))

    def stop(record):
        if record.get("step") == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(prepare_run(recipe, tmp_path / "cut"), on_record=stop)
    again = execute(prepare_run(recipe, tmp_path / "cut"))
    name = "adapter_model.safetensors"
    assert (again / name).read_bytes() == (whole / name).read_bytes()
    assert (again / "chat_template.jinja").read_text("utf-8") == TAGS
    assert load(str(tmp_path / "base"), adapters=[again]).tokenizer.chat_template == TAGS


def test_texts_among_conversations_are_learned_whole_and_questions_never(tmp_path):
    tiny_folder(tmp_path / "base")
    text = write(tmp_path / "text.jsonl", [{"text": each} for each in TINY_TEXTS])
    recipe = recipe_of("sft-1", write(tmp_path / "one.jsonl", LLAMA_TURK), model=str(tmp_path / "base"))
    data = recipe.data.model_dump(mode="json")
    data["build"]["sources"].append({"path": str(text)})
    data["build"]["heldout_share"] = 0.0
    data["chat"]["template"] = "turkish"
    run = prepare_run(
        check({**recipe.model_dump(mode="json"), "data": data}, TrainRecipe, place="test"), tmp_path / "run"
    )
    assert run.loaded.tokenizer.chat_template == TEMPLATE
    wholes = 0
    answers = {each.turns[-1].text for each in read_conversations(run.corpus.train, on_fault=lambda fault: None)}
    for number in range(len(run.rows)):
        ids, learned = run.rows[number], run.rows.can_mask(number)
        told = run.codec.decode(ids[learned].tolist()).strip()
        if learned[1]:
            wholes += 1
            assert learned.tolist() == [False, *[True] * (len(ids) - 1)]
        else:
            assert told in {run.codec.decode(run.codec.encode(each)).strip() for each in answers}
    assert wholes == len(set(TINY_TEXTS))


def test_short_answers_come_first_in_the_first_pass_only(tmp_path):
    import numpy as np

    lengths, answers = np.full(400, 10), np.arange(400)
    plans = [np.concatenate(plan_epoch(lengths, seed=0, epoch=epoch, batch_tokens=100, difficulty=answers))
             for epoch in (0, 1)]  # fmt: skip
    halves = [(answers[plan[:200]].mean(), answers[plan[200:]].mean()) for plan in plans]
    assert halves[0][0] < 120 < 280 < halves[0][1]
    assert abs(halves[1][0] - halves[1][1]) < 40
    assert sorted(plans[0].tolist()) == list(range(400))
    # Nothing comes earlier or later than twice its own difficulty would.
    place = np.argsort(plans[0])
    hard = np.flatnonzero(answers > 4 * 20 + 3)
    assert place[:20].max() < place[hard].min()


def test_a_folder_of_texts_or_a_file_of_answers_is_a_recipe_of_its_own(tmp_path):
    domain = load_recipe("recipes/domain.yaml", TrainRecipe, ["data.path=my/"])
    assert [(each.path, each.kind) for each in domain.data.build.sources] == [("my/", "texts")]
    answers = load_recipe("recipes/answers.yaml", TrainRecipe, ["data.conversations=qa.csv"])
    assert [(each.path, each.kind) for each in answers.data.build.sources] == [("qa.csv", "conversations")]
    with pytest.raises(RecipeError, match=r"short for build\.sources"):
        load_recipe("recipes/mini-instruct.yaml", TrainRecipe, ["data.path=my/"])
