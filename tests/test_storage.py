import errno
import json
import math
import os
from pathlib import Path

import pytest

from diffutron.errors import StorageError
from diffutron.storage import appearing, recover, remove, write_bytes, write_json, writing


def fill(folder: Path, content: str) -> None:
    with appearing(folder) as draft:
        (draft / "file").write_text(content)


def names_in(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_a_link_stays_a_link_and_what_it_names_is_new(tmp_path):
    for name in ("big", "here"):
        (tmp_path / name).mkdir()
    (tmp_path / "here" / "corpus").symlink_to(tmp_path / "big" / "corpus")
    (tmp_path / "here" / "page").symlink_to(tmp_path / "big" / "page")
    for content in ("old", "new"):
        fill(tmp_path / "here" / "corpus", content)
        write_bytes(tmp_path / "here" / "page", content.encode())
        assert (tmp_path / "big" / "corpus" / "file").read_text() == content
        assert (tmp_path / "big" / "page").read_text() == content
    assert (tmp_path / "here" / "corpus").is_symlink()
    assert (tmp_path / "here" / "page").is_symlink()
    assert names_in(tmp_path / "here") == names_in(tmp_path / "big") == ["corpus", "page"]


def test_what_is_no_file_is_written_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_bytes(pipe, b"through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert pipe.is_fifo()


def put_a_file_where_a_folder_is(folder: Path) -> None:
    with appearing(folder) as draft:
        (draft / "page").mkdir()
        write_bytes(draft / "page", b"")


def test_a_folder_in_the_place_of_a_file_is_told_by_its_name(tmp_path):
    (tmp_path / "page").mkdir()
    with pytest.raises(StorageError, match=r"/page could not be written: Is a directory"):
        write_bytes(tmp_path / "page", b"")
    with pytest.raises(StorageError, match=r"/model could not be written: Is a directory"):
        put_a_file_where_a_folder_is(tmp_path / "model")
    assert names_in(tmp_path) == ["page"]


def test_a_refusal_without_a_file_name_is_told_with_one_and_leaves_the_old_file(tmp_path):
    (tmp_path / "page").write_text("old")
    with pytest.raises(StorageError, match=r"/page could not be written: No space left"), writing(tmp_path / "page"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert (tmp_path / "page").read_text() == "old"
    assert names_in(tmp_path) == ["page"]


def test_files_are_as_readable_as_the_umask_lets_them_be(tmp_path):
    before = os.umask(0o027)
    try:
        with appearing(tmp_path / "model") as draft:
            (draft / "open").write_text("")
            (draft / "closed").touch(mode=0o600)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()}
    assert modes == {"open": 0o640, "closed": 0o640}


def test_a_reader_that_puts_the_old_folder_back_in_the_moment_of_exchange_does_no_harm(tmp_path, monkeypatch):
    fill(tmp_path / "model", "old")
    rename, met = Path.rename, []

    def slow(self, target):
        if self.suffix == ".tmp" and not met:
            met.append(self)
            recover(tmp_path / "model")
            assert (tmp_path / "model" / "file").read_text() == "old"
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", slow)
    fill(tmp_path / "model", "new")
    assert met
    assert (tmp_path / "model" / "file").read_text() == "new"
    assert names_in(tmp_path) == ["model"]


def test_what_lies_behind_a_link_is_removed_and_the_link_is_not(tmp_path):
    (tmp_path / "scratch" / "deep").mkdir(parents=True)
    (tmp_path / "scratch" / "deep" / "file").touch()
    (tmp_path / "checkpoints").symlink_to(tmp_path / "scratch")
    remove(tmp_path / "checkpoints")
    assert (tmp_path / "checkpoints").is_symlink()
    assert names_in(tmp_path / "scratch") == []
    remove(tmp_path / "scratch")
    assert names_in(tmp_path) == ["checkpoints"]


def test_json_has_null_for_what_is_no_number(tmp_path):
    write_json(tmp_path / "x.json", {"a": [1.5, math.nan], "b": {"c": -math.inf}})
    assert json.loads((tmp_path / "x.json").read_text(), parse_constant=pytest.fail) == {
        "a": [1.5, None], "b": {"c": None}
    }  # fmt: skip
