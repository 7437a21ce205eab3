"""Raw files: what can be read is read, what cannot is named with its line."""

import bz2
import gzip
import json
import logging
import lzma
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from diffutron.corpus import Fault, files_of, read_records, read_texts
from diffutron.corpus.read import Stripe
from diffutron.errors import DataError


@pytest.fixture
def read(tmp_path):
    """Write a file, read it: the texts by line, and the faults by line."""

    def read(name, content):
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        faults: list[Fault] = []
        records = {place.removeprefix(f"{file}:"): record for place, record in read_records(file, faults.append)}
        return records, {fault.place.removeprefix(f"{file}:"): fault.reason for fault in faults}

    return read


def lines(*texts):
    return "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts).encode("utf-8")


def test_each_line_of_jsonl_is_a_record_with_its_place(read):
    records, faults = read("a.jsonl", '{"text": "bir", "n": 1}\n\n  \n{"text": "ıki\\nsatır"}')
    assert records == {"1": {"text": "bir", "n": 1}, "4": {"text": "ıki\nsatır"}}
    assert faults == {}


def test_a_broken_line_is_named_with_its_number_and_the_rest_is_read(read):
    records, faults = read("a.jsonl", '{"text": "bir"}\n{"text": "iki\n{"text": "üç"}\n')
    assert [record["text"] for record in records.values()] == ["bir", "üç"]
    assert list(faults) == ["2"]
    assert faults["2"].startswith("broken JSON (")


@pytest.mark.parametrize(
    ("line", "kind"),
    [("1", "int"), ("[{}]", "list"), ("null", "NoneType"), ('"metin"', "str"), ("true", "bool"), ("NaN", "float")],
)
def test_a_line_that_is_json_but_no_object_is_named(read, line, kind):
    records, faults = read("a.jsonl", f'{line}\n{{"text": "sonra"}}\n')
    assert records == {"2": {"text": "sonra"}}
    assert faults == {"1": f"is a JSON {kind}, not an object"}


@pytest.mark.parametrize("depth", [100_000, 2_000_000])
@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_a_line_of_deep_nesting_is_broken_and_the_rest_is_read(read, opening, depth):
    records, faults = read("a.jsonl", opening * depth + '\n{"text": "sonra"}\n')
    assert records == {"2": {"text": "sonra"}}
    assert list(faults) == ["1"]


def test_a_number_too_long_for_python_is_a_broken_line(read):
    records, faults = read("a.jsonl", '{"text": "x", "n": ' + "1" * 5000 + '}\n{"text": "sonra"}\n')
    assert list(records) == ["2"]
    assert list(faults) == ["1"]


def test_a_repeated_key_has_its_last_value(read):
    assert read("a.jsonl", '{"text": "ilk", "text": "son"}\n') == ({"1": {"text": "son"}}, {})


@pytest.mark.parametrize("line", ['{"text": "\\ud800"}', '{"text": "x", "other": ["\\udfff"]}', '{"\\ud800": 1}'])
def test_a_lone_surrogate_is_a_broken_line_because_it_can_never_be_written(read, line):
    records, faults = read("a.jsonl", f'{line}\n{{"text": "\\ud83d\\ude00"}}\n')
    assert records == {"2": {"text": "😀"}}
    assert faults == {"1": "broken JSON (surrogates not allowed)"}


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_a_line_that_is_not_utf8_is_named_and_the_rest_is_read(read, name):
    content = lines("bir") + '{"text": "ışık"}\n'.encode("iso-8859-9") + lines("üç")
    records, faults = read(name, gzip.compress(content) if name.endswith("gz") else content)
    assert [record["text"] for record in records.values()] == ["bir", "üç"]
    assert faults == {"2": "is not UTF-8"}


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(read, name):
    content = lines("bir", "iki") if name == "a.jsonl" else b"bir\n\niki\n"
    records, faults = read(name, b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n"))
    assert [record["text"].strip() for record in records.values()] == ["bir", "iki"]
    assert faults == {}


PACKERS = {".gz": gzip.compress, ".zst": zstandard.compress, ".xz": lzma.compress, ".bz2": bz2.compress}


@pytest.mark.parametrize("packing", PACKERS)
def test_every_packing_is_read_in_every_kind_of_file(read, packing):
    texts = [f"{number}. metin, ışıklı" for number in range(2000)]
    kinds = {
        ".jsonl": lines(*texts), ".txt": "\n\n".join(texts).encode(),
        ".csv": ("text\n" + "".join(f'"{text}"\n' for text in texts)).encode(),
    }  # fmt: skip
    for kind, content in kinds.items():
        records, faults = read(f"a{kind}{packing}", PACKERS[packing](content))
        assert [record["text"].strip() for record in records.values()] == texts, kind
        assert faults == {}


def test_frames_of_zstandard_one_after_the_other_are_one_file(read):
    packed = zstandard.compress(lines("bir", "iki")) + zstandard.compress(lines("üç"))
    records, faults = read("a.jsonl.zst", packed)
    assert [record["text"] for record in records.values()] == ["bir", "iki", "üç"]
    assert faults == {}


@pytest.mark.parametrize("packing", PACKERS)
def test_a_packed_file_that_is_cut_gives_what_stood_before(read, packing):
    # Numbers in every line: what compresses well is lost as a whole when the file is cut.
    written = lines(*(f"{n * n * 7919 % 100003} sayılı metin" for n in range(40_000)))
    whole = PACKERS[packing](written)
    records, faults = read(f"a.jsonl{packing}", whole[: len(whole) * 3 // 4])
    texts = [record["text"] for record in records.values()]
    assert 1000 < len(texts) < 39_000
    assert lines(*texts) == written[: len(lines(*texts))]
    assert any("breaks off" in reason for reason in faults.values())
    assert len(faults) == 1


def test_a_gzip_file_with_rotten_bytes_is_a_fault_and_no_crash(read):
    whole = bytearray(gzip.compress(lines(*(f"{n * n * 7919 % 100003} sayılı metin" for n in range(5000)))))
    whole[len(whole) // 2 : len(whole) // 2 + 200] = b"\xff" * 200
    records, faults = read("a.jsonl.gz", bytes(whole))
    assert records["1"] == {"text": "0 sayılı metin"}
    assert any("breaks off" in reason for reason in faults.values())


def test_a_gzip_file_that_goes_on_as_something_else_gives_what_stood_before(read):
    # 0xff opens no block of compressed data: zlib itself refuses, not the checksum.
    records, faults = read("a.jsonl.gz", gzip.compress(lines("bir", "iki")) + gzip.compress(b"")[:10] + b"\xff" * 50)
    assert [record["text"] for record in records.values()] == ["bir", "iki"]
    assert len(faults) == 1
    assert "breaks off" in next(iter(faults.values()))


@pytest.mark.parametrize("packing", [".xz", ".bz2"])  # zstandard has no checksum unless it is asked for one
def test_a_packed_file_with_rotten_bytes_is_a_fault_and_no_crash(read, packing):
    whole = bytearray(PACKERS[packing](lines(*(f"{n * n * 7919 % 100003} sayılı metin" for n in range(9000)))))
    whole[len(whole) // 2 : len(whole) // 2 + 200] = b"\xff" * 200
    _, faults = read(f"a.jsonl{packing}", bytes(whole))
    assert any("breaks off" in reason for reason in faults.values())


def test_a_file_that_is_called_gz_and_is_not_is_a_fault(read):
    records, faults = read("a.txt.gz", "düz metin")
    assert records == {}
    assert len(faults) == 1


def test_blank_lines_part_the_texts_of_a_text_file(read):
    records, faults = read("a.txt", "\n\nbir\niki\n\n \t\n\nüç\r\n\r\ndört")
    assert {place: record["text"].split() for place, record in records.items()} == {
        "3": ["bir", "iki"],
        "8": ["üç"],
        "10": ["dört"],
    }
    assert faults == {}


def test_a_text_with_a_line_that_is_not_utf8_is_left_out_whole_and_named_once(read):
    records, faults = read("a.txt", b"bir\n\n\xe7ok\niki\n\xff\xff\n\n\n" + "üç\n".encode())
    assert records == {"1": {"text": "bir\n"}, "8": {"text": "üç\n"}}
    assert faults == {"3": "is not UTF-8, so that the text around it is left out"}


@pytest.mark.parametrize("of", [2, 3])
def test_each_text_that_is_not_utf8_is_told_by_one_of_the_tasks_that_share_the_file(tmp_path, of):
    (tmp_path / "a.txt").write_bytes(b"\n\n".join(b"\xff" if n % 10 == 0 else b"%d" % n for n in range(500)))
    faults: list[Fault] = []
    stripes = [Stripe(index, of) for index in range(of)]
    records = [each for stripe in stripes for each in read_records(tmp_path / "a.txt", faults.append, stripe)]
    assert (len(records), len({fault.place for fault in faults}), len(faults)) == (450, 50, 50)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_text_file_in_another_unicode_is_a_fault_of_the_file_told_once(tmp_path, encoding, mark):
    file = tmp_path / "a.txt"
    file.write_bytes((mark + "\n\nışık\nçok\n\nğ\n").encode(encoding))
    faults: list[Fault] = []
    for index in (0, 1):
        assert list(read_records(file, faults.append, Stripe(index, 2))) == []
    assert faults == [Fault(str(file), "is not UTF-8 (UTF-16, perhaps); save it as UTF-8", is_fatal=True)]
    with pytest.raises(DataError, match=r"a\.txt is not UTF-8"):
        list(read_texts(file))


def test_a_stray_null_byte_in_a_later_text_costs_nothing(read):
    records, faults = read("a.txt", b"bir\n\ni\0ki\n\ndort\n")
    assert ([record["text"] for record in records.values()], faults) == (["bir\n", "i\0ki\n", "dort\n"], {})


def test_a_list_of_json_objects_is_read_and_what_is_none_is_named(read):
    records, faults = read("a.json", '[{"text": "bir"}, 3, {"text": "iki"}, {"text": "\\ud800"}]')
    assert [record["text"] for record in records.values()] == ["bir", "iki"]
    assert faults == {"2": "is a JSON int, not an object", "4": "broken JSON (surrogates not allowed)"}


@pytest.mark.parametrize(("content", "reason"), [
    ('{"text": "bir"}', "is a JSON dict, not a list of objects"), ("[1, 2", "broken JSON"),
    (b"[\xff]", "is not UTF-8"), ("[" * 100_000, "broken JSON"),
])  # fmt: skip
def test_json_that_is_no_list_is_a_fault_of_the_file(read, content, reason):
    records, faults = read("a.json", content)
    assert not records
    assert len(faults) == 1
    assert reason in next(iter(faults.values()))


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_rows_of_csv_are_records_by_their_names_and_lines(read, mark):
    rows = [["soru", "cevap"], ["Ne?", '"Bu, ""o"" ve; şu\tdeğil"'], ["Nasıl?", '"iki\nsatır"'], ["Kim?", "Ali"]]
    records, faults = read("a.csv", "\ufeff" + "\r\n".join(mark.join(row) for row in rows))
    assert list(records.values()) == [
        {"soru": "Ne?", "cevap": 'Bu, "o" ve; şu\tdeğil'}, {"soru": "Nasıl?", "cevap": "iki\nsatır"},
        {"soru": "Kim?", "cevap": "Ali"},
    ]  # fmt: skip
    assert list(records) == ["2", "4", "5"]
    assert not faults


def test_a_row_of_csv_with_other_fields_is_named_and_the_rest_is_read(read):
    records, faults = read("a.csv", "soru,cevap\nNe?\nKim?,Ali,Veli\nNasıl?,İyi\n")
    assert list(records.values()) == [{"soru": "Nasıl?", "cevap": "İyi"}]
    assert faults == dict.fromkeys(("2", "3"), "has not as many fields as the 2 names above")


def test_csv_that_breaks_off_gives_what_stood_before(read):
    records, faults = read("a.csv", 'soru,cevap\nNe?,Bu\nKim?,"Ali\n')
    assert list(records.values()) == [{"soru": "Ne?", "cevap": "Bu"}]
    assert "broken CSV" in next(iter(faults.values()))


def test_a_row_of_csv_that_is_not_utf8_is_named_and_the_rest_is_read(read):
    records, faults = read("b.csv", b"soru,cevap\nNe?,Bu\n" + b"Kim?,\xff\n" + "Nasıl?,İyi\n".encode())
    assert list(records.values()) == [{"soru": "Ne?", "cevap": "Bu"}, {"soru": "Nasıl?", "cevap": "İyi"}]
    assert faults == {"3": "is not UTF-8"}


def test_blank_lines_above_the_names_of_csv_do_no_harm(read):
    assert read("a.csv", "\n  \r\nsoru,cevap\nNe?,Bu\n") == ({"4": {"soru": "Ne?", "cevap": "Bu"}}, {})


@pytest.mark.parametrize(("head", "reason"), [
    (b"soru,cevap,soru", "has several columns of the name 'soru'"),
    (b"soru,\xff,cevap", "has names of columns that are not UTF-8"),
])  # fmt: skip
def test_names_of_csv_that_tell_no_columns_apart_are_a_fault_of_the_file(tmp_path, head, reason):
    (tmp_path / "a.csv").write_bytes(head + b"\nNe?,Bu,Ne\n")
    faults: list[Fault] = []
    assert list(read_records(tmp_path / "a.csv", faults.append)) == []
    assert faults == [Fault(str(tmp_path / "a.csv"), reason, is_fatal=True)]


def test_columns_of_csv_without_a_name_may_be_many(read):
    assert read("a.csv", "soru,,\nNe?,,\n") == ({"2": {"soru": "Ne?", "": ""}}, {})


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.jsonl.gz", "a.txt.gz"])
def test_an_empty_file_holds_nothing_and_breaks_nothing(read, name):
    assert read(name, b"") == ({}, {})
    assert read(name, gzip.compress(b"") if name.endswith("gz") else b"\n\n") == ({}, {})


def parquet(column, tmp_path):
    file = tmp_path / "source.parquet"
    pq.write_table(pa.table({"text": column, "n": pa.array(range(len(column)))}), file)
    return file.read_bytes()


def test_each_row_of_parquet_is_a_record(read, tmp_path):
    content = parquet(pa.array([f"metin {n}" for n in range(1500)]), tmp_path)  # more than a batch
    records, faults = read("a.parquet", content)
    assert records["1"] == {"text": "metin 0", "n": 0}
    assert records["1500"] == {"text": "metin 1499", "n": 1499}
    assert len(records) == 1500
    assert faults == {}


@pytest.mark.parametrize("cut", [1, 8, 100])
def test_parquet_without_its_footer_is_a_fault_of_the_file(read, tmp_path, cut):
    content = parquet(pa.array(["bir", "iki"]), tmp_path)
    records, faults = read("a.parquet", content[:-cut])
    assert records == {}
    (reason,) = faults.values()
    assert reason.startswith("is not readable parquet: ")
    assert "\n" not in reason


@pytest.mark.parametrize("content", [b"", b"no parquet at all", b"PAR1PAR1"])
def test_what_is_only_called_parquet_is_a_fault_of_the_file(read, content):
    records, faults = read("a.parquet", content)
    assert records == {}
    assert len(faults) == 1


def test_rotten_pages_of_parquet_are_a_fault_of_one_line(read, tmp_path):
    content = bytearray(parquet(pa.array(["bir", "iki"]), tmp_path))
    content[4:30] = b"\xff" * 26
    records, faults = read("a.parquet", bytes(content))
    assert records == {}
    assert ["\n" in reason for reason in faults.values()] == [False]


def test_a_parquet_row_that_is_not_utf8_is_named_and_the_rest_is_read(read, tmp_path):
    offsets, letters = b"\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0", b"a\xffb"
    column = pa.Array.from_buffers(pa.string(), 3, [None, pa.py_buffer(offsets), pa.py_buffer(letters)])
    records, faults = read("a.parquet", parquet(column, tmp_path))
    assert records == {"1": {"text": "a", "n": 0}, "3": {"text": "b", "n": 2}}
    assert faults == {"2": "is not UTF-8"}


def test_a_parquet_value_that_python_cannot_hold_costs_its_row_and_no_other(read, tmp_path):
    years = pa.array([0, 10**15, 0], pa.timestamp("s"))  # the second is some 30 million years off
    pq.write_table(pa.table({"text": ["bir", "iki", "üç"], "at": years}), tmp_path / "source.parquet")
    records, faults = read("a.parquet", (tmp_path / "source.parquet").read_bytes())
    assert [record["text"] for record in records.values()] == ["bir", "üç"]
    assert list(faults) == ["2"]
    assert faults["2"].startswith("holds a value that Python cannot (")


def test_a_parquet_time_zone_that_nobody_knows_is_told(read, tmp_path):
    times = pa.array([0, 1], pa.timestamp("s", tz="Mars/Olympus"))
    pq.write_table(pa.table({"text": ["bir", "iki"], "at": times}), tmp_path / "source.parquet")
    records, faults = read("a.parquet", (tmp_path / "source.parquet").read_bytes())
    assert (records, list(faults)) == ({}, ["1", "2"])
    assert "Mars/Olympus" in faults["1"]


@pytest.mark.parametrize(
    "column", [pa.array([1, 2]), pa.array([b"a", b"b"]), pa.array([None, None], pa.string()), pa.array([["a"], []])]
)
def test_a_parquet_column_that_is_no_text_gives_no_text(tmp_path, column):
    file = tmp_path / "a.parquet"
    file.write_bytes(parquet(column, tmp_path))
    faults: list[Fault] = []
    assert list(read_texts(file, on_fault=faults.append)) == []
    assert faults == [Fault(f"{file}:{row}", "has no text in the field 'text'") for row in (1, 2)]


def test_a_record_without_a_text_or_whose_text_is_no_string_is_named(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "bir"}\n{"txt": "iki"}\n{"text": 3}\n{"text": null}\n{"text": ["a"]}\n{"text": ""}\n')
    faults: list[Fault] = []
    assert list(read_texts(file, on_fault=faults.append)) == ["bir", ""]
    assert [fault.place for fault in faults] == [f"{file}:{line}" for line in (2, 3, 4, 5)]
    assert {fault.reason for fault in faults} == {"has no text in the field 'text'"}


def test_the_text_may_stand_in_another_field(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"content": "bir", "text": "öbürü"}\n', encoding="utf-8")
    assert list(read_texts(file, text_field="content")) == ["bir"]


def test_texts_come_as_they_stand(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(lines("  I\u0307ki \r\n\r\n\u200b "))
    assert list(read_texts(tmp_path / "a.jsonl")) == ["  I\u0307ki \r\n\r\n\u200b "]


def test_a_fault_that_nobody_asked_for_is_a_warning_in_the_log(tmp_path, caplog):
    file = tmp_path / "a.jsonl"
    file.write_text("[]\n")
    with caplog.at_level(logging.WARNING):
        assert list(read_texts(file)) == []
    assert caplog.messages == [f"{file}:1: is a JSON list, not an object; left out"]


def test_a_folder_is_read_whole_in_order_of_name(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "c.txt").write_text("dördüncü\n", encoding="utf-8")
    (tmp_path / "a.jsonl").write_bytes(lines("birinci"))
    (tmp_path / "b" / "y.jsonl.gz").write_bytes(gzip.compress(lines("üçüncü")))
    (tmp_path / "b" / "x.txt.gz").write_bytes(gzip.compress(b"ikinci"))
    (tmp_path / "README.md").write_text("not data")
    (tmp_path / "manifest.json").write_text('{"documents": 4}')
    (tmp_path / "d.jsonl.bak").write_text("not data")
    (tmp_path / "e.parquet").mkdir()  # a folder, whatever it is called
    assert [text.strip() for text in read_texts(tmp_path)] == ["birinci", "ikinci", "üçüncü", "dördüncü"]


def test_linked_folders_are_read_once_and_capital_suffixes_like_small_ones(tmp_path):
    (tmp_path / "data" / "z").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data" / "A.JSONL").write_bytes(lines("birinci"))
    (tmp_path / "elsewhere" / "b.TXT.GZ").write_bytes(gzip.compress(b"ikinci"))
    (tmp_path / "data" / "META.JSON").write_text("{}")
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "z" / "again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "z" / "round").symlink_to(tmp_path / "data")
    (tmp_path / "data" / ".hidden").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "lost.txt").symlink_to(tmp_path / "yok.txt")
    assert files_of(tmp_path / "data") == [tmp_path / "data" / "A.JSONL", tmp_path / "data" / "link" / "b.TXT.GZ"]
    assert list(read_texts(tmp_path / "data")) == ["birinci", "ikinci"]


def test_a_file_name_that_is_not_utf8_is_refused_in_one_line_that_can_be_printed(tmp_path):
    file = tmp_path / os.fsdecode(b"g\xfcn.txt")
    file.write_text("metin")
    for place in (tmp_path, file):
        with pytest.raises(DataError, match=r"g\\xfcn\.txt: its name is not UTF-8") as caught:
            files_of(place)
        str(caught.value).encode("utf-8")


def test_a_folder_without_data_says_what_is_readable(tmp_path):
    (tmp_path / "README.md").write_text("not data")
    with pytest.raises(DataError) as caught:
        files_of(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path} holds no file of a known kind; readable are .jsonl, ")


@pytest.mark.parametrize("name", ["a.tsv", "a.yaml", "jsonl", "a.jsonl.7z", "a.parquet.gz"])
def test_an_unknown_kind_of_file_says_what_is_readable(tmp_path, name):
    (tmp_path / name).write_text("x")
    with pytest.raises(DataError, match=r"unknown kind of file; readable are \.jsonl, "):
        files_of(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError) as caught:
        files_of(tmp_path / "yok.jsonl")
    assert str(caught.value) == f"data file {tmp_path / 'yok.jsonl'} does not exist"


def test_a_file_that_vanishes_before_it_is_read_is_named(tmp_path):
    for name in ("a.jsonl", "a.txt.gz", "a.parquet"):
        with pytest.raises(DataError) as caught:
            list(read_records(tmp_path / name))
        assert str(tmp_path / name) in str(caught.value)
