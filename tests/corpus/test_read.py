"""Raw files: what can be read is read, what cannot is named with its line."""

import bz2
import gzip
import json
import logging
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from diffutron.corpus import Fault, files_of, read_records, read_texts
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


def test_a_line_of_a_text_file_that_is_not_utf8_is_left_out_of_its_text(read):
    records, faults = read("a.txt", b"bir\n\xff\xfe\niki\n")
    assert records == {"1": {"text": "bir\niki\n"}}
    assert faults == {"2": "is not UTF-8"}


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
    records, faults = read("b.csv", b"soru,cevap\nNe?,Bu\n" + b"Kim?,\xff\n")
    assert "is not UTF-8" in next(iter(faults.values()))


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
