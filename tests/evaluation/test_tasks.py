import json
import math
import sys
import types
from dataclasses import replace
from urllib.parse import unquote

import numpy as np
import pytest

pytest.importorskip("lm_eval")

import lm_eval.tasks
from lm_eval.evaluator import evaluate

from diffutron.errors import DataError, InputError
from diffutron.evaluation import tasks
from diffutron.evaluation.cetvel import documents
from diffutron.evaluation.harness import Estimate, HarnessModel
from diffutron.evaluation.tasks import CETVEL, Answered, TaskScore, run_tasks, score_of
from diffutron.model import Loaded
from diffutron.testing import tiny_denoiser, tiny_tokenizer

DOCUMENTS = {
    "belebele_tr": {
        "flores_passage": "Tren gece kalktı.", "question": "Ne kalktı? ", "mc_answer1": "tren", "mc_answer2": "gemi",
        "mc_answer3": "uçak", "mc_answer4": "at", "correct_answer_num": "1",
    },
    "exams_tr": {
        "stem": "Başkent neresidir?", "answerKey": "B",
        "choices": [{"text": "İzmir.", "label": "A"}, {"text": "Ankara.", "label": "B"}],
    },
    "ironytr": {"text": "Ne güzel, yine yağmur.", "label": 1},
    "news_cat": {"text": "Takım maçı kazandı.", "label": "health"},
    "mnli_tr": {"premise": "Çocuk uyudu.", "hypothesis": "Çocuk uyanık.", "label": "contradiction"},
    "sts_tr": {"sentence1": "Kedi uyudu.", "sentence2": "Kedi uyuyor.", "score": 3.8},
    "xcopa_tr": {
        "premise": "Işık söndü.", "choice1": "Isı arttı.", "choice2": "İnsan düğmeye bastı.", "question": "cause",
        "label": 1,
    },
}  # fmt: skip
ASKED = {
    "belebele_tr": (
        "P: Tren gece kalktı.\nQ: Ne kalktı?\nA: tren\nB: gemi\nC: uçak\nD: at\nAnswer:", ["A", "B", "C", "D"], 0,
    ),
    "exams_tr": ("Başkent neresidir?", ["İzmir.", "Ankara."], 1),
    "ironytr": ("Cümle: Ne güzel, yine yağmur.\nSoru: Bu cümlede ironi var mı?\nCevap:", ["Hayır", "Evet"], 1),
    "news_cat": (
        "Bu cümlenin konusu nedir?\nTakım maçı kazandı.\nCevap:",
        ["spor", "magazin", "siyaset", "sağlık", "ekonomi"], 3,
    ),
    "mnli_tr": (
        "Cümle 1: Çocuk uyudu.\nCümle 2: Çocuk uyanık.\nBu iki cümle arasındaki ilişki nedir:",
        ["TUTARLI", "ALAKASIZ", "ÇELİŞKİLİ"], 2,
    ),
    "sts_tr": (
        "Cümle 1: Kedi uyudu.\nCümle 2: Kedi uyuyor.\nBu iki cümlenin anlamca benzerliği:",
        ["hiç yok", "çok az", "az", "orta", "çok", "tam"], 4,
    ),
    "xcopa_tr": ("Işık söndü çünkü", ["ısı arttı.", "insan düğmeye bastı."], 1),
}  # fmt: skip


def write(file, *records):
    file.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in records), encoding="utf-8")
    return file


def model_of(seed=0, **options):
    return HarnessModel(Loaded("tiny", tiny_denoiser(), tiny_tokenizer(), {}), seed=seed, num_draws=4, **options)


def xcopa_file(place, size=12):
    nouns = ["kitap", "defter", "kapı", "tren"]
    return write(place / "xcopa.jsonl", *(
        {"premise": f"Gece {nouns[number % 4]} açtı.", "choice1": "Uzak ev söndü.", "label": number % 3 % 2,
         "choice2": f"Küçük {nouns[number % 3]} düşündü.", "question": ["cause", "effect"][number % 2]}
        for number in range(size)
    ))  # fmt: skip


@pytest.mark.parametrize("task", CETVEL)
def test_each_task_asks_what_its_protocol_says(tmp_path, task):
    loaded = tasks._load([task], {task: write(tmp_path / "one.jsonl", DOCUMENTS[task])})[task]
    [document] = loaded.eval_docs
    context, choices, right = ASKED[task]
    assert loaded.doc_to_text(document) == context
    assert loaded.doc_to_choice(document) == choices
    assert loaded.doc_to_target(document) == right
    loaded.build_all_requests()
    assert [each.args for each in loaded.instances] == [(context, f" {choice}") for choice in choices]
    assert loaded.config.num_fewshot == 0


def test_all_tasks_of_cetvel_are_one_tag_and_read_the_hub_unless_told_otherwise():
    manager = lm_eval.tasks.TaskManager(include_path=tasks._OURS, include_defaults=False)
    assert manager.task_index["cetvel"].tags == set(CETVEL)
    hub = {name: manager.task_index[name].cfg for name in CETVEL}
    assert all("/" in config["dataset_path"] for name, config in hub.items() if name != "mnli_tr")
    [(split, files)] = hub["mnli_tr"]["dataset_kwargs"]["data_files"].items()
    assert split == hub["mnli_tr"]["test_split"] == "validation_matched"
    where = unquote(files.removeprefix("hf://datasets/"))
    assert where == "boun-tabi/nli_tr@refs/convert/parquet/multinli_tr/validation_matched/*.parquet"


def test_exams_reads_the_shape_of_the_hub_too_and_a_bad_key_is_the_fourth():
    nested = {
        "question": {"stem": "Soru?", "choices": {"text": ["bir", "iki"], "label": ["A", "B"]}},
        "answerKey": " B ",
    }
    assert documents.exams_stem(nested) == "Soru?"
    assert documents.exams_choices(nested) == ["bir", "iki"]
    assert documents.exams_answer(nested) == 1
    assert documents.exams_answer({**nested, "answerKey": "@"}) == 3


def test_labels_are_read_as_numbers_and_as_words_and_no_other():
    assert [documents.mnli_label({"label": label}) for label in (0, 1, 2)] == [0, 1, 2]
    assert [documents.mnli_label({"label": label}) for label in documents.NLI_LABELS] == [0, 1, 2]
    with pytest.raises(DataError, match="'maybe'; known are entailment"):
        documents.mnli_label({"label": "maybe"})
    with pytest.raises(DataError, match="the label -1"):
        documents.mnli_label({"label": -1})


@pytest.mark.parametrize(("score", "grade"), [(0.0, 0), (0.4, 0), (2.5, 2), (3.5, 4), (4.75, 5), (5, 5)])
def test_similarities_become_the_nearest_of_six_grades(score, grade):
    assert documents.sts_grade({"score": score}) == grade


def test_a_score_is_what_lm_eval_makes_of_the_same_answers(tmp_path):
    file = xcopa_file(tmp_path)
    model = model_of()
    by_metric = {score.metric: score for score in run_tasks(model, ["xcopa_tr"], data={"xcopa_tr": file})}
    theirs = evaluate(model, {"tasks": tasks._load(["xcopa_tr"], {"xcopa_tr": file})}, bootstrap_iters=1)
    assert set(by_metric) == {"acc", "acc_norm"}
    for metric, score in by_metric.items():
        assert score.value == theirs["results"]["xcopa_tr"][f"{metric},none"]
        assert score.standard_error == pytest.approx(theirs["results"]["xcopa_tr"][f"{metric}_stderr,none"])
        assert score.low < score.value < score.high
        assert score.num_documents == 12


def test_a_limit_takes_the_first_documents_and_the_fingerprint_tells(tmp_path):
    file = xcopa_file(tmp_path)
    few, _ = run_tasks(model_of(), ["xcopa_tr"], data={"xcopa_tr": file}, limit=5)
    again, _ = run_tasks(model_of(), ["xcopa_tr"], data={"xcopa_tr": xcopa_file(tmp_path, 5)})
    assert few == again
    assert few.num_documents == 5
    whole, _ = run_tasks(model_of(seed=1), ["xcopa_tr"], data={"xcopa_tr": xcopa_file(tmp_path)})
    assert whole.fingerprint != few.fingerprint


def estimate(*halves, was_cut=False):
    return Estimate(sum(halves) / 2, 0.1, halves, was_cut)


def document(nats, right, *, context="Soru", choices=("bir", "iki", "üçüncü")):
    """The same answer from both halves of the draws."""
    return Answered(context, choices[: len(nats)], tuple(estimate(each, each) for each in nats), right)


def scored(answered, metric="acc"):
    return score_of("a task", metric, answered, types.SimpleNamespace(estimator="bound", num_draws=8, seed=0))


def test_the_highest_is_chosen_by_its_log_likelihood_or_by_that_of_a_character():
    # -3 / 3 = -1.0, -5 / 3 = -1.7, -4.2 / 6 = -0.7 nats a character
    one = document((-3.0, -5.0, -4.2), 0)
    assert (one.is_right("acc"), one.is_right("acc_norm")) == (True, False)
    assert replace(one, right=2).is_right("acc_norm")
    empty = document((-math.inf, -5.0), 0, choices=("", "iki"))
    assert [empty.chosen(metric) for metric in ("acc", "acc_norm")] == [1, 1]


def test_chance_and_majority_are_those_of_the_documents():
    right = [0, 0, 0, 1, 2, 2]
    score = scored([document((-1.0, -2.0, -3.0), each) for each in right])
    assert score.value == pytest.approx(0.5)
    assert score.chance == pytest.approx(1 / 3)
    assert score.majority == pytest.approx(0.5)
    mixed = scored([document((-1.0, -2.0), 0), document((-1.0, -2.0, -3.0), 1)])
    assert mixed.chance == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert mixed.majority == pytest.approx(0.5)


def test_the_fingerprint_changes_with_any_context_choice_or_answer_and_not_with_the_model():
    one = document((-1.0, -2.0), 0)
    others = [replace(one, context="Başka"), replace(one, choices=("bir", "üç")), replace(one, right=1)]
    assert len({scored([each, one]).fingerprint for each in [one, *others]}) == 4
    assert scored([document((-5.0, -1.0), 0)]).fingerprint == scored([one]).fingerprint


def test_a_right_answer_that_always_stands_first_makes_no_majority():
    pairs = [document((-1.0, -2.0), 0, choices=(f"iyi {number}", "kötü")) for number in range(4)]
    assert scored(pairs).majority is None
    assert scored([document((-1.0, -2.0), 0)] * 4).majority == 1.0


def test_the_error_of_the_draws_is_the_spread_of_scores_by_half_of_the_draws_and_shrinks_with_more():
    generator = np.random.default_rng(0)
    margins = generator.normal(0.3, 1.0, 50)

    def run(noise):
        halves = margins[:, None] + generator.normal(0, noise, (50, 2))
        return [
            Answered("Soru", ("bir", "iki"), (estimate(float(one), float(other)), estimate(0.0, 0.0)), 0)
            for one, other in halves
        ]

    told = {}
    for noise in (2.0, 1.0, 0.5, 0.0):
        runs = [run(noise) for _ in range(150)]
        by_a_half = [np.mean([each.is_right("acc", 0) for each in answered]) for answered in runs]
        told[noise] = math.sqrt(np.mean([scored(answered).mc_standard_error ** 2 for answered in runs]))
        assert told[noise] == pytest.approx(np.std(by_a_half), rel=0.2)
        assert np.std([scored(answered).value for answered in runs]) <= told[noise] * 1.1 + 1e-9
    assert told[2.0] > told[1.0] > told[0.5] > told[0.0] == 0


def test_more_draws_from_a_model_shrink_the_error_of_the_draws(tmp_path):
    file = xcopa_file(tmp_path, 16)

    def error(num_draws):
        found = []
        for seed in range(4):
            model = model_of(seed)
            model.num_draws = num_draws
            found.append(run_tasks(model, ["xcopa_tr"], data={"xcopa_tr": file})[0].mc_standard_error ** 2)
        return math.sqrt(np.mean(found))

    assert 0 < error(64) < error(4)


def test_a_model_that_always_gives_one_answer_is_told_so():
    deaf = [document((-1.0, -2.0), each) for each in (0, 1) * 20]
    assert scored(deaf).one_answer == 1.0
    assert scored(deaf).verdict.endswith("; 100% of its answers are one and the same")
    pairs = [document((-1.0, -2.0), 0, choices=(f"iyi {number}", "kötü")) for number in range(40)]
    assert "one and the same" not in scored(pairs).verdict
    half = [document(nats, 0) for nats in ((-1.0, -2.0), (-2.0, -1.0)) * 20]
    assert scored(half).one_answer == 0.5
    assert "one and the same" not in scored(half).verdict


def verdict(low, high, chance, majority):
    empty = dict.fromkeys(TaskScore.__dataclass_fields__)
    return TaskScore(
        **{**empty, "low": low, "high": high, "chance": chance, "majority": majority, "one_answer": 0.5}
    ).verdict


def test_a_score_is_above_chance_only_if_its_whole_interval_is():
    assert verdict(0.45, 0.55, 0.5, 0.6) == "at chance: its interval holds what guessing would get"
    assert verdict(0.55, 0.65, 0.5, 0.6) == "at chance: its interval holds what always answering the same would get"
    assert verdict(0.45, 0.65, 0.5, 0.6).endswith("what guessing and always answering the same would get")
    assert verdict(0.61, 0.65, 0.5, 0.6) == "above guessing and always answering the same"
    assert verdict(0.51, 0.55, 0.5, 0.6) == "above guessing, but below always answering the same"
    assert verdict(0.10, 0.20, 0.5, 0.6) == "below guessing and always answering the same"
    assert verdict(0.61, 0.65, 0.5, None) == "above guessing"


def test_turkmorfbench_reads_its_package(monkeypatch):
    item = {"govde": "Kars", "secenek": ["Kars'e", "Kars'a"], "altin_sira": 1, "kova": "özel ad", "gercek": True}
    package = types.ModuleType("turkmorfbench.veri")
    package.yukle = lambda layer: [item, {**item, "hucre": ["a", 1]}]
    monkeypatch.setitem(sys.modules, "turkmorfbench", types.ModuleType("turkmorfbench"))
    monkeypatch.setitem(sys.modules, "turkmorfbench.veri", package)
    loaded = tasks._load(["turkmorfbench"], {})["turkmorfbench"]
    loaded.build_all_requests()
    asked = [each.args for each in loaded.instances]
    assert asked[:2] == [("Kelime: Kars\nÇekimli biçim:", " Kars'e"), ("Kelime: Kars\nÇekimli biçim:", " Kars'a")]
    assert len(asked) == 4
    monkeypatch.setitem(sys.modules, "turkmorfbench.veri", None)
    with pytest.raises(DataError, match="pip install turkmorfbench"):
        run_tasks(model_of(), ["turkmorfbench"])


def test_what_the_hub_does_not_give_is_one_line_with_the_way_out():
    with pytest.raises(DataError, match=r"'turblimp_binding'.*--data turblimp_binding=FILE") as error:
        run_tasks(model_of(), ["turblimp_binding"])
    assert "\n" not in str(error.value)


def test_a_minimal_pair_of_turblimp_is_a_choice_after_nothing(tmp_path):
    pair = {"sentence_good": "Ben okudum.", "sentence_bad": "Ben okudun."}
    file = write(tmp_path / "pairs.jsonl", pair, {**pair, "sentence_good": "Biz okuduk."})
    score, _ = run_tasks(model_of(), ["turblimp_binding"], data={"turblimp_binding": file})
    assert (score.num_documents, score.chance, score.majority) == (2, 0.5, None)


def test_documents_without_the_fields_of_a_task_are_one_line(tmp_path):
    file = write(tmp_path / "one.jsonl", {"text": "bir"})
    with pytest.raises(
        DataError, match=r"'xcopa_tr': .*one\.jsonl is not what the task expects \(KeyError: '(?:premise|question)'\)"
    ):
        run_tasks(model_of(), ["xcopa_tr"], data={"xcopa_tr": file})
    with pytest.raises(DataError, match="holds no document"):
        run_tasks(model_of(), ["xcopa_tr"], data={"xcopa_tr": write(tmp_path / "none.jsonl")})


def test_a_file_for_a_task_that_is_not_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="a file for mnli_tr, which is not among"):
        run_tasks(model_of(), ["xcopa_tr"], data={"mnli_tr": xcopa_file(tmp_path)})


def test_tasks_of_a_tag_or_a_group_may_have_files(tmp_path):
    files = {task: write(tmp_path / f"{task}.jsonl", DOCUMENTS[task]) for task in CETVEL}
    assert set(tasks._load(["cetvel"], files)) == set(CETVEL)
    index = lm_eval.tasks.TaskManager(include_path=[tasks._TURBLIMP, tasks._OURS], include_defaults=False).task_index
    opened = tasks._opened("turblimp_core", {"turblimp_binding": tmp_path}, index)
    assert len(opened) == 16
    assert "turblimp_binding" in opened
    assert tasks._opened("turblimp_core", files, index) == ["turblimp_core"]
    assert tasks._opened("xcopa_tr", files, index) == ["xcopa_tr"]


@pytest.mark.slow
def test_a_task_that_nobody_knows_is_one_line_with_the_nearest():
    with pytest.raises(InputError, match="'xcopa_t'; did you mean 'xcopa_t"):
        run_tasks(model_of(), ["xcopa_t"])


def test_a_task_of_another_kind_is_refused(tmp_path, monkeypatch):
    (tmp_path / "free.yaml").write_text(
        "task: free\noutput_type: generate_until\ndoc_to_text: text\ndoc_to_target: text\ntest_split: test\n"
        "custom_dataset: !function diffutron.evaluation.cetvel.documents.turkmorfbench\n", encoding="utf-8",
    )  # fmt: skip
    monkeypatch.setattr(tasks, "_OURS", tmp_path)
    with pytest.raises(InputError, match="'free' is no choice between texts"):
        run_tasks(model_of(), ["free"], data={"free": write(tmp_path / "one.jsonl", {"text": "bir"})})


def test_bars_of_others_are_silent_and_come_back(tmp_path, capsys):
    bar = lm_eval.api.task.tqdm
    run_tasks(model_of(), ["xcopa_tr"], data={"xcopa_tr": xcopa_file(tmp_path, 2)})
    assert capsys.readouterr() == ("", "")
    assert lm_eval.api.task.tqdm is bar


@pytest.mark.parametrize("label", [-1, "-"])
def test_pairs_that_the_annotators_did_not_agree_on_are_not_scored(tmp_path, label):
    pair = {"premise": "Çocuk uyudu.", "hypothesis": "Çocuk uyanık.", "label": 2 if label == -1 else "contradiction"}
    file = write(tmp_path / "pairs.jsonl", pair, {**pair, "label": label}, {**pair, "premise": "Çocuk koştu."})
    score, *_ = run_tasks(model_of(), ["mnli_tr"], data={"mnli_tr": file})
    assert (score.num_documents, score.majority) == (2, 1.0)


def test_a_task_without_data_does_not_keep_the_others_from_being_scored(tmp_path):
    asked = {"names": ["xcopa_tr", "turblimp_binding"], "data": {"xcopa_tr": xcopa_file(tmp_path)}}
    missing = []
    assert {score.task for score in run_tasks(model_of(), **asked, on_missing=missing.append)} == {"xcopa_tr"}
    assert [str(error).partition(":")[0] for error in missing] == ["task 'turblimp_binding'"]
    with pytest.raises(DataError, match="turblimp_binding"):
        run_tasks(model_of(), **asked)
    with pytest.raises(DataError, match="turblimp_binding"):
        run_tasks(model_of(), ["turblimp_binding"], on_missing=missing.append)


def test_labels_may_be_digits_and_one_that_is_no_choice_is_told_with_its_document(tmp_path):
    records = [{"text": f"Cümle {number}.", "label": str(number % 2)} for number in range(6)]
    [acc, _] = run_tasks(model_of(), ["ironytr"], data={"ironytr": write(tmp_path / "a.jsonl", *records)})
    assert acc.majority == 0.5
    for label, kind in ((7, int), (3, int), (-1, int), (None, int), ("evet", str)):
        same_kind = [{**each, "label": kind(each["label"])} for each in records]
        file = write(tmp_path / "b.jsonl", *same_kind, {"text": "Cümle.", "label": label})
        with pytest.raises(DataError, match=rf"'ironytr': document 7 has the label {label!r}, and 2 choices"):
            run_tasks(model_of(), ["ironytr"], data={"ironytr": file})


def test_a_later_document_without_its_fields_is_one_line_too(tmp_path):
    file = write(tmp_path / "x.jsonl", DOCUMENTS["exams_tr"], {"stem": "Başkent neresidir?", "answerKey": "B"})
    with pytest.raises(DataError, match=r"'exams_tr': document 2 is not what the task expects"):
        run_tasks(model_of(), ["exams_tr"], data={"exams_tr": file})


def test_the_majority_is_of_answers_that_can_be_given():
    documents = [document([0.0, 1.0, 2.0], right) for right in (3, 3, 3, 1)]
    assert scored(documents).majority == 0.25
