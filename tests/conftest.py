"""No test asks a network, nor draws anew each time: the libraries are told so before anything imports them."""

import io
import os
import sys

import pytest
from hypothesis import settings

from diffutron.cli.main import main

for _name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
    os.environ[_name] = "1"

settings.register_profile("tests", derandomize=True, deadline=None)
settings.load_profile("tests")


@pytest.fixture
def cli(monkeypatch, capsys):
    """The command line in this process: ``out, err = cli("fill", "Ankara [MASK].")``, with ``code`` at its end."""

    def cli(*arguments, code=0, said=""):
        monkeypatch.setattr(sys, "argv", ["diffutron", *map(str, arguments)])
        piped = said.encode() if isinstance(said, str) else said
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(piped), encoding="utf-8"))
        with pytest.raises(SystemExit) as stop:
            main()
        printed = capsys.readouterr()
        assert (stop.value.code or 0) == code, printed.out + printed.err
        return printed

    return cli
