"""The READMEs: their code runs, and they say the same in both languages."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
READMES = [ROOT / "README.md", ROOT / "README.tr.md"]


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_python_in_the_readme_runs(readme, capsys):
    blocks = re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, readme.name, "exec"), {})
    out = capsys.readouterr().out
    assert "Bir varmış bir yokmuş" in out
    assert "nan" not in out.splitlines()[-1], "the perplexity has no interval"


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_links_into_the_repository_lead_somewhere(readme):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", readme.read_text(encoding="utf-8"))
    assert len(links) > 10
    assert not [link for link in links if not (ROOT / link).exists()]


def test_both_languages_have_the_same_headings_and_numbers():
    english, turkish = (path.read_text(encoding="utf-8") for path in READMES)
    assert len(re.findall(r"^#", english, re.M)) == len(re.findall(r"^#", turkish, re.M))
    tables = [re.findall(r"^\| mini.*$", text, re.M) for text in (english, turkish)]
    numbers = [[re.findall(r"\d+[.,]\d+", row.replace(",", ".")) for row in table] for table in tables]
    assert numbers[0] == numbers[1]
    assert len(numbers[0]) >= 6
