"""Make one adapter of two that were trained one on top of the other: exactly, with the sum of their ranks.

    python scripts/stack_adapters.py LOWER UPPER --out DIR

W + B1 A1 + B2 A2 is W + [B1 B2] [A1; A2]. The result adapts LOWER's base, so that UPPER does not depend on what
becomes of LOWER: `mini-instruct` ships so, since the `mini` that it was trained on has been trained further.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from diffutron.model.checkpoint import read_json
from diffutron.storage import appearing, write_json

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lower", type=Path)
    parser.add_argument("upper", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    stack(options.lower, options.upper, options.out)


def stack(lower: Path, upper: Path, out: Path) -> None:
    """Write the adapter; what lies beside UPPER's weights (template, settings, card) comes with it."""
    one, two = (load_file(folder / WEIGHTS) for folder in (lower, upper))
    below, above = (read_json(folder / CONFIG) for folder in (lower, upper))
    scales = {config["lora_alpha"] / config["r"] for config in (below, above)}
    if one.keys() != two.keys() or len(scales) > 1 or any(each.get("use_rslora") for each in (below, above)):
        raise SystemExit("the two adapt other layers, or are scaled in different ways")
    rank = below["r"] + above["r"]
    with appearing(out) as draft:
        shutil.copytree(upper, draft, dirs_exist_ok=True)
        save_file(
            {name: torch.cat([one[name], two[name]], dim=0 if ".lora_A." in name else 1).contiguous() for name in one},
            draft / WEIGHTS, metadata={"format": "pt"},
        )  # fmt: skip
        base = below["base_model_name_or_path"]
        more = {"r": rank, "lora_alpha": rank * scales.pop(), "base_model_name_or_path": base}
        write_json(draft / CONFIG, {**above, **more})


if __name__ == "__main__":
    main()
