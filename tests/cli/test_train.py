"""What a user sees of a run: the live line, the samples, the curve, the report, and one voice of many workers."""

import io
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from diffutron.cli.live import RunLine, step_line
from diffutron.cli.report import plot_loss, running_mean
from diffutron.cli.run_report import loss_picture, read_metrics, write_run_report
from diffutron.errors import DataError
from diffutron.evaluation.beside_training import PROMPTS
from diffutron.recipe import load_recipe
from diffutron.testing import TINY_TEXTS, tiny_folder
from diffutron.training.recipe import TrainRecipe
from diffutron.training.run import prepare_run
from diffutron.training.workers import Workers

RECIPE = """
# <script>alert("recipe")</script>
model: base
data:
  build:
    sources: [{path: texts.jsonl, name: "<script>"}]
    heldout_share: 0.2
    min_characters: 10
    filters: none
    duplicates: {near: false, paragraphs: false}
    decontaminate: none
  max_tokens: 48
objective: {kind: mlm-range}
optimizer: {learning_rate: 1e-2}
batch_tokens: 200
train_tokens: 1500
evaluate_every_tokens: 1000
"""
RECORD = {
    "step": 7, "tokens": 1400, "loss": 2.3141, "tokens_per_second": 41_200.0, "progress": 0.71, "seconds_left": 720.0,
    "loss_by_rate": [None, 2.0, *[None] * 8],
}  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch):
    tiny_folder(tmp_path / "base")
    with open(tmp_path / "texts.jsonl", "w", encoding="utf-8") as stream:
        for number in range(40):
            text = " ".join(TINY_TEXTS[(number * step) % len(TINY_TEXTS)] for step in (1, 3)) + f" {number}"
            stream.write(json.dumps({"text": text}) + "\n")
    (tmp_path / "r.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def train(cli):
    return partial(cli, "train", "r.yaml", "--out", "run")


def test_step_line_has_the_documented_form():
    assert step_line({**RECORD, "step": 1200}) == "step 01200 | loss 2.314 | 41.2k tok/s | 71% | eta 12m"


def test_terminal_shows_the_newest_step_beside_a_bar_and_gets_its_cursor_back():
    terminal = io.StringIO()
    with RunLine(console=Console(file=terminal, force_terminal=True, width=120)) as line:
        line.step(RECORD)
        line.note("held-out [bold]perplexity[/]")
    shown = terminal.getvalue()
    assert "━" in shown
    assert step_line(RECORD) in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    assert "held-out [bold]perplexity[/]" in shown  # what looks like markup is text
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")


def test_log_gets_the_first_and_the_last_line_and_one_every_ten_seconds(capsys, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    with RunLine() as line:
        for step in range(1, 41):
            line.step({**RECORD, "step": step, "progress": step / 40})
            clock[0] += 0.6
    assert [int(shown[5:10]) for shown in capsys.readouterr().err.splitlines()] == [1, 18, 35, 40]


def test_quiet_line_says_nothing(capsys):
    with RunLine(quiet=True) as line:
        line.step({**RECORD, "progress": 1.0})
        line.note("a word")
    assert capsys.readouterr() == ("", "")


def test_run_leaves_samples_a_curve_and_a_report(place, train):
    out, err = train()
    assert out == "run/model\n"
    assert err.splitlines()[1].startswith("precision: ")
    run = place / "run"
    scores = [record for record in read_metrics(run / "metrics.jsonl") if "loss" not in record]
    assert len(scores) >= 2
    assert all(record["perplexity"] > 1 for record in scores)
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [sample["prompt"] for sample in samples] == list(PROMPTS) * len(scores)
    assert {sample["step"] for sample in samples} == {record["step"] for record in scores}
    assert all(sample["text"] == sample["prompt"] + sample["completion"] for sample in samples)
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")
    page = (run / "report.html").read_text(encoding="utf-8")
    assert '<img alt="loss over tokens" src="data:image/png;base64,' in page
    assert all(f"{record['perplexity']:.2f}" in page for record in scores)
    assert page.count("<blockquote>") == len(samples)
    assert "Bir varmış bir yokmuş" in page
    assert "alert" not in page  # comments are not settings
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"(src|href)=.https?:", page)
    assert not [path for path in run.iterdir() if path.name.startswith(".")]


def test_the_same_seed_writes_the_same_samples_and_a_run_that_is_done_changes_nothing(place, train):
    train()
    first = (place / "run" / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    train()
    again = (place / "run" / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert set(again) == set(first)


def test_run_without_held_out_texts_still_writes_samples(place, train):
    _, err = train("--set", "data.build.heldout_share=0")
    assert "perplexity" not in err
    assert (place / "run" / "samples.jsonl").read_text(encoding="utf-8").count("\n") >= len(PROMPTS)
    assert "Nothing is held out." in (place / "run" / "report.html").read_text(encoding="utf-8")


def finished_run(place):
    """A run that never ran, with records that somebody else wrote."""
    run = prepare_run(load_recipe("r.yaml", TrainRecipe), place / "run")
    sample = {"prompt": "<img src=x>", "completion": "</blockquote><script>alert(1)</script>", "finish_reason": "<em>"}
    scores = {"mask_rate": 0.15, "perplexity": 12.5, "low": 11.0, "high": 14.0, "top1": 0.3, "num_texts": 4,
              "num_masked": 90}  # fmt: skip
    records = [RECORD, {"step": 7, "tokens": 1400, **scores, "samples": [{**sample, "text": "…"}]}]
    lines = [json.dumps(record) + "\n" for record in records]
    run.metrics.write_text("".join([*lines, '{"step": 8, "lo']))  # cut by a kill
    return run


def test_report_escapes_whatever_a_model_writes(place):
    run = finished_run(place)
    write_run_report(replace(run, precision=replace(run.precision, note="precision: <b>float32</b>")))
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<img src=x>" not in page
    assert "&lt;img src=x&gt;" in page
    assert "&lt;/blockquote&gt;&lt;script&gt;alert(1)" in page
    assert "[&lt;em&gt;]" in page
    assert "Precision: &lt;b&gt;float32&lt;/b&gt;" in page
    assert "12.50" in page


def test_report_does_without_matplotlib(place, monkeypatch):
    run = finished_run(place)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    write_run_report(run)
    assert "pip install 'diffutron[plot]'" in (run.folder / "report.html").read_text(encoding="utf-8")
    assert not (run.folder / "loss.png").exists()


def test_report_is_never_seen_half_written(place, monkeypatch):
    run = finished_run(place)
    write_run_report(run)
    names = ("report.html", "samples.jsonl", "loss.png")
    before = {name: (run.folder / name).read_bytes() for name in names}
    seen = []

    def look(draft, target):
        seen.append(target.name)
        assert target.read_bytes() == before[target.name]  # whole until the moment it is replaced
        assert draft.parent == target.parent

    monkeypatch.setattr("os.replace", look)
    with open(run.metrics, "a", encoding="utf-8") as stream:
        stream.write("\n" + json.dumps({**RECORD, "step": 9, "tokens": 1800}) + "\n")
    write_run_report(run)
    assert sorted(seen) == sorted(names)


def test_picture_of_a_long_run_takes_a_thousand_points():
    steps = [{**RECORD, "tokens": 10 * number} for number in range(50_000)]
    assert loss_picture(steps, []).startswith(b"\x89PNG")
    assert loss_picture([], []).startswith(b"\x89PNG")


def test_tensorboard_that_is_not_installed_is_named_before_anything_is_done(place, train, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    out, err = train("--tensorboard", code=1)
    assert (out, err) == ("", "error: --tensorboard needs: pip install 'diffutron[tensorboard]'\n")
    assert not (place / "run").exists()


def test_tensorboard_gets_the_numbers_of_every_record(place, train, monkeypatch):
    written = []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            written.append(("folder", folder, purge_step))

        def add_scalar(self, name, value, step):
            written.append((name, value, step))

        def add_text(self, name, text, step):
            written.append((name, text, step))

        def close(self):
            written.append(("closed",))

    module = type(sys)("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    train("--tensorboard")
    assert written[0] == ("folder", "run/tensorboard", 1)
    assert written[-1] == ("closed",)
    records = read_metrics(place / "run" / "metrics.jsonl")
    for record in records:
        for name in ("loss", "perplexity"):
            if name in record:
                assert (name, record[name], record["step"]) in written
    assert any(name.startswith("loss_by_rate/") for name, *_ in written)
    assert {name for name, *_ in written} >= {"(no prompt)", "Türkiye'nin"}


class Second(Workers):
    """The second of two workers, whose first has done its part."""

    rank, size = 1, 2

    def __init__(self, met=None):
        self.met, self.asked = met, 0

    def agree(self, error):
        self.asked += 1
        if self.met is not None:
            raise self.met


def test_only_the_first_worker_builds_and_writes(place):
    recipe = load_recipe("r.yaml", TrainRecipe)
    first = prepare_run(recipe, place / "run")
    for name in ("recipe.yaml", "run.json"):
        (place / "run" / name).unlink()
    second = Second()
    run = prepare_run(recipe, place / "run", workers=second)
    assert second.asked == 4  # waited for the look at what lies there, the corpus, the rows and the files
    assert run.rows.fingerprint == first.rows.fingerprint
    assert sorted(path.name for path in (place / "run").iterdir()) == ["corpus", "rows"]


def test_what_the_first_worker_met_stops_the_others(place):
    with pytest.raises(DataError, match="the first says so"):
        prepare_run(load_recipe("r.yaml", TrainRecipe), place / "run", workers=Second(DataError("the first says so")))
    assert not (place / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_torchrun_trains_with_one_voice_what_one_process_trains(place, train, kind):
    train()
    alone = read_metrics(place / "run" / "metrics.jsonl")
    torchrun = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone"]
    command = [
        *torchrun,
        "--nproc-per-node",
        "2",
        "-m",
        "diffutron",
        "train",
        "r.yaml",
        "--out",
        "two",
        "--set",
        f"workers={kind}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "two/model\n"
    assert done.stderr.count("2 workers") == 1
    together = read_metrics(place / "two" / "metrics.jsonl")
    assert [record["step"] for record in together] == [record["step"] for record in alone]
    for one, two in zip(alone, together, strict=True):
        key = "loss" if "loss" in one else "perplexity"
        assert one[key] == pytest.approx(two[key], rel=1e-3)
    assert {path.name for path in (place / "two").iterdir()} == {path.name for path in (place / "run").iterdir()}


def test_many_processes_without_workers_in_the_recipe_are_one_clear_error(place, train, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "the recipe has no `workers`; set workers=ddp or fsdp" in train(code=1)[1]


def test_a_slice_ends_with_a_checkpoint_and_the_same_command_goes_on(place, train):
    whole = ("--set", "train_tokens=1_000_000_000", "--set", "evaluate_every_tokens=1_000_000_000")
    out, err = train(*whole, "--minutes", 0.05)
    assert out == ""
    assert "3s are over; a checkpoint is kept in run/checkpoints" in err
    reached = read_metrics(place / "run" / "metrics.jsonl")[-1]["step"]
    assert reached > 0
    train(*whole, "--minutes", 0.05)
    steps = [record["step"] for record in read_metrics(place / "run" / "metrics.jsonl")]
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) > reached
    assert not (place / "run" / "model").exists()


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("change", ["recipe", "text"])
def test_another_run_is_refused_before_anything_of_the_first_is_touched(place, train, change):
    train()
    before = contents(place / "run")
    more, says = ("--set", "optimizer.learning_rate=2e-2"), "recipe.optimizer.learning_rate was 0.01 and is 0.02"
    if change == "text":
        more, says = (), "texts.jsonl has changed since it was read"
        with open(place / "texts.jsonl", "a", encoding="utf-8") as stream:
            stream.write(json.dumps({"text": "Bu metin sonradan eklendi ve daha önce yoktu."}) + "\n")
    _, err = train(*more, code=1)
    assert says in err
    assert contents(place / "run") == before
    train(*more, "--resume", "never")
    after = contents(place / "run")
    assert after[Path("run.json")] != before[Path("run.json")]
    assert after[Path("model/model.safetensors")] != before[Path("model/model.safetensors")]


def test_a_run_whose_model_is_another_now_is_refused(place, train):
    train()
    (place / "other").mkdir()
    tiny_folder(place / "other", seed=1)
    (place / "base" / "model.safetensors").write_bytes((place / "other" / "model.safetensors").read_bytes())
    assert "another run: weights was " in train(code=1)[1]
    train("--resume", "anyway")


def test_a_folder_that_no_run_made_is_left_alone_whatever_is_asked(place, train):
    (place / "run").mkdir()
    (place / "run" / "notlar.txt").write_text("benim", encoding="utf-8")
    for more in ((), ("--resume", "never"), ("--resume", "anyway")):
        assert "run holds 'notlar.txt' and no run; choose another run folder" in train(*more, code=1)[1]
    assert contents(place / "run") == {Path("notlar.txt"): b"benim"}


@pytest.mark.parametrize("left", [".rows.0123abcd.tmp/half", ".corpus.0123abcd.tmp/half", ".run.json.tmp"])
def test_a_run_that_was_killed_while_it_prepared_goes_on(place, train, left):
    half = place / "run" / left
    half.parent.mkdir(parents=True)
    half.write_bytes(b"x")
    train()
    assert not half.exists()
    assert (place / "run" / "model" / "model.safetensors").is_file()


def test_starting_over_removes_nothing_before_all_else_is_known_to_be_well(place, train):
    train()
    before = contents(place / "run")
    train("--resume", "never", "--set", "model=yok/yok", code=1)
    assert {name: before[name] for name in contents(place / "run")} == contents(place / "run")
    assert Path("model/model.safetensors") in contents(place / "run")


@pytest.mark.parametrize("minutes", ["nan", "inf", "0", "-1"])
def test_minutes_that_are_none_are_refused(train, minutes):
    assert (
        f"--minutes must be above 0 and below 1000000, not {float(minutes)}" in train("--minutes", minutes, code=1)[1]
    )


def test_steps_without_a_number_and_a_text_without_an_interval_leave_gaps_in_a_report(place):
    run = finished_run(place)
    skipped = {**RECORD, "step": 8, "loss": None, "loss_by_rate": [None] * 10}
    scores = {"mask_rate": 0.5, "perplexity": 9.75, "low": None, "high": None, "top1": 0.3, "num_texts": 1,
              "num_masked": 9, "samples": []}  # fmt: skip
    records = [skipped, {**RECORD, "step": 9, "tokens": 1800}, {"step": 9, "tokens": 1800, **scores}]
    run.metrics.write_text("".join(json.dumps(each) + "\n" for each in [RECORD, *records]), encoding="utf-8")
    write_run_report(run)
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "<td>50%</td><td>9.75</td><td>no interval</td>" in page
    curve = running_mean([1.0, 2.0])
    drawn = []
    axes = SimpleNamespace(
        plot=lambda tokens, losses, **_: drawn.append(losses), set=lambda **_: None, legend=lambda **_: None
    )
    plot_loss(axes, [{"tokens": n, "loss": loss} for n, loss in enumerate([1.0, None, float("nan"), 2.0])])
    assert drawn == [[1.0, 2.0], curve]


def test_a_held_out_part_that_cannot_be_measured_does_not_cost_what_was_trained(place, train, monkeypatch):
    def refuse(*_):
        raise DataError("no token was hidden")

    monkeypatch.setattr("diffutron.evaluation.beside_training.perplexity_of", refuse)
    train()
    assert (place / "run" / "model" / "model.safetensors").is_file()
    assert all("perplexity" not in each for each in read_metrics(place / "run" / "metrics.jsonl"))


def test_metrics_are_json_whatever_the_numbers_are(place, train, monkeypatch):
    monkeypatch.setattr(
        "diffutron.evaluation.beside_training.perplexity_of",
        lambda *_: SimpleNamespace(as_dict=lambda: {"perplexity": 2.0, "low": math.nan, "high": math.nan,
                                                    "mask_rate": 0.15, "top1": 0.1, "num_texts": 1, "num_masked": 3}),
    )  # fmt: skip
    _, err = train()
    assert "held-out perplexity 2.00 (one text: no interval)" in err
    lines = (place / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert any(json.loads(line, parse_constant=pytest.fail).get("low", 1) is None for line in lines)
