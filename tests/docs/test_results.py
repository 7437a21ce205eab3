"""The tables of the READMEs and the cards are made from one file of numbers, and from nothing else."""

import importlib.util
import json
from pathlib import Path

import pytest

from diffutron.testing import TINY_TEXTS, tiny_folder

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_results", ROOT / "scripts" / "make_results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_marked_table_is_one_that_the_script_makes(script):
    pages = [ROOT / "README.md", ROOT / "README.tr.md", *script.CARDS.glob("*/README.md")]
    marked = [found[2] for page in pages for found in script._MARKED.finditer(page.read_text(encoding="utf-8"))]
    assert sorted(marked) == ["comparison", "karsilastirma", "mini", "mini_base", "mini_instruct"]
    assert set(marked) == set(script.TABLES)


def test_tables_say_what_the_report_measured_and_the_rest_of_the_page_stays(script, tmp_path, monkeypatch, cli):
    for name, seed in (("before", 0), ("after", 1)):
        tiny_folder(tmp_path / name, seed=seed)
    for name in script.SETS:
        lines = "".join(json.dumps({"text": text}) + "\n" for text in TINY_TEXTS)
        (tmp_path / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    data = [part for name in script.SETS for part in ("--data", f"{name}.jsonl")]
    cli(
        "eval",
        "report",
        "after",
        "--before",
        "before",
        "--out",
        "out",
        "--seeds",
        1,
        "--draws",
        2,
        "--max-texts",
        5,
        *data,
    )
    numbers = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    page = "# Title\n\n<!-- results:comparison -->\nold\n<!-- /results -->\n\nThe end.\n"
    made = script.filled(page, numbers)
    assert made.startswith("# Title\n\n<!-- results:comparison -->\n| model |")
    assert made.endswith("\n<!-- /results -->\n\nThe end.\n")
    assert script.filled(made, numbers) == made
    table = script.comparison(numbers)
    assert len(table.splitlines()) == 2 + 2 * len(script.SETS)
    for each in numbers["sets"]:
        score, before = each["score"], each["before"]
        assert score["num_texts"] == before["num_texts"] == len(TINY_TEXTS)
        assert {part["num_texts"] for part in (*each["curve"], *each["curve_before"], each["bound"])} == {5}
        assert f"| {score['perplexity']:.1f} |" in table
        change = 100 * (score["perplexity"] / before["perplexity"] - 1)
        assert f"{change:+.1f} % (" in table
    assert f"{score['nll']:.3f}" in script.card(numbers, side="score")
