"""The reference is made from the settings, and is up to date."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_reference_of_recipes_is_what_the_settings_say():
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "scripts" / "make_reference.py")
    make_reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_reference)
    assert make_reference.PAGE.read_text(encoding="utf-8") == make_reference.page(), (
        "run: python scripts/make_reference.py"
    )
