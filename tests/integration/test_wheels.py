"""The wheels, installed outside the checkout, fill and generate."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheels")
    for project in (ROOT, ROOT / "models" / "mini"):
        command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(project)]
        subprocess.run(command, check=True, capture_output=True)
    site = folder / "site"
    wheels = [str(path) for path in folder.glob("*.whl")]
    assert len(wheels) == 2
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(site), *wheels],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


def call(installed, *arguments):
    # PYTHONPATH stands before the environment's own packages, which here serve the dependencies only.
    environment = {**os.environ, "PYTHONPATH": str(installed / "site")}
    done = subprocess.run(
        [sys.executable, "-m", "diffutron", *arguments], cwd=installed, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_wheels_fill_generate_and_know_their_recipes(installed):
    where = "import diffutron, diffutron_mini; print(diffutron.__file__, diffutron_mini.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(installed / "site")}
    found = subprocess.check_output([sys.executable, "-c", where], cwd=installed, env=environment, text=True)
    assert found.count(str(installed / "site")) == 2

    ways = json.loads(call(installed, "fill", "Ankara, Türkiye'nin [MASK]dir.", "--json", "--offline"))
    assert len(ways) == 5
    [text] = json.loads(call(installed, "generate", "Bir varmış", "--max-new-tokens", "8", "--json", "--offline"))
    assert text["text"].startswith("Bir varmış")
    assert "cpt" in call(installed, "recipe", "ls")


@pytest.mark.slow
def test_installed_from_a_checkout_the_models_of_the_checkout_are_there(tmp_path):
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*command, "--target", str(tmp_path), str(ROOT)], check=True, capture_output=True)
    for name in ("mini", "samples/speeches.jsonl.gz"):
        # Here diffutron-mini is installed as well.
        code = "from diffutron.model import names; import importlib.util as u; u.find_spec = lambda name: None; "
        code += f"print(names.__file__, names.embedded_file({name!r}))"
        found = subprocess.check_output(
            [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, text=True
        )
        assert str(tmp_path) in found.split()[0]
        assert Path(found.split()[1]) == ROOT / "models/mini/src/diffutron_mini" / name


def test_wheel_of_the_code_is_light_and_has_the_recipes(tmp_path):
    import zipfile

    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.stat().st_size < 600_000
    assert {"diffutron/serving/static/index.html", "diffutron/publish/card.tr.md"} <= set(names)
    assert "diffutron/recipes/cpt.yaml" in names
    assert "diffutron/py.typed" in names
    assert not [name for name in names if name.startswith("diffutron_mini")]
