"""Train one of the embedded models for some minutes, and stop with a checkpoint: how they are trained over days.

    python scripts/train_slice.py recipes/mini-long.yaml [--minutes 60] [-- more options of diffutron train]

The run lies in runs/<recipe>, which git ignores. Where it is gone, a new run of the recipe starts from the weights of
that name in the repository instead of the recipe's own start, so that nothing learned is lost: a model from itself, an
adapter from itself on the model that the recipe names. A recipe of a later part, as mini-long, names them itself.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

START = {
    "mini-base": "model=mini-base",
    "mini-base-long": "model=mini-base",
    "mini": "lora.start=mini",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("more", nargs="*")
    options = parser.parse_args()
    run = Path("runs") / options.recipe.stem
    command = [sys.executable, "-m", "diffutron", "train", str(options.recipe), "--out", str(run), "--offline",
               "--minutes", str(options.minutes), *options.more]  # fmt: skip
    marker = run / "start.txt"
    if not run.exists():
        run.mkdir(parents=True)
        marker.write_text(START.get(options.recipe.stem, ""), encoding="utf-8")
    start = marker.read_text(encoding="utf-8") if marker.exists() else ""
    if start:
        command += ["--set", start]
    sys.exit(subprocess.run(command).returncode)


if __name__ == "__main__":
    main()
