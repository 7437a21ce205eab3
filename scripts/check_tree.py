"""What the linters do not see: big files, pickles, and words that must not be in the repository."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

MAX_BYTES = 500_000
MAX_MODEL_BYTES = 45_000_000
FORBIDDEN = {
    r"\btorch\.load\(": "pickled weights",
    r"\bpickle\.loads?\(": "pickle",
    r"\byaml\.(unsafe_)?load\((?![^)]*_Loader)": "unsafe YAML",
    r"\btrust_remote_code=True": "remote code",
    r"(?<![\w.])/(?:root|home|work)/\w": "a path of one machine",
}


def main() -> int:
    files = [Path(line) for line in subprocess.check_output(["git", "ls-files"], text=True).splitlines()]
    faults = []
    for file in files:
        if not file.is_file():
            continue
        limit = MAX_MODEL_BYTES if file.parts[0] == "models" else MAX_BYTES
        if file.stat().st_size > limit:
            faults.append(f"{file}: {file.stat().st_size:,} bytes, more than {limit:,}")
        if file.suffix in (".py", ".md", ".yaml", ".toml", ".json", ".cff") and file.name != Path(__file__).name:
            text = file.read_text(encoding="utf-8")
            for pattern, meaning in FORBIDDEN.items():
                if match := re.search(pattern, text):
                    line = text.count("\n", 0, match.start()) + 1
                    faults.append(f"{file}:{line}: {meaning}: {match.group(0)}")
    english, turkish = (re.findall(r"^#+", Path(name).read_text(encoding="utf-8"), re.M) for name in
                        ("README.md", "README.tr.md"))  # fmt: skip
    if english != turkish:
        faults.append(f"README.md and README.tr.md differ in their headings: {len(english)} and {len(turkish)}")
    print("\n".join(faults) or f"{len(files)} files, nothing to object to")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
