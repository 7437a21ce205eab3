"""``build_corpus``: the same recipe, the same bytes; and a build that fails leaves everything as it was."""

import gzip
import importlib.metadata
import json
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffutron.corpus import CorpusSettings, build_corpus, changed_input, open_corpus, read_texts
from diffutron.corpus.build import _only_build, versions
from diffutron.corpus.plan import identity, plan_build
from diffutron.corpus.read import digest_of
from diffutron.errors import DataError, InputError, StorageError
from diffutron.testing import tiny_tokenizer

TEXTS = [f"Bu {number} numaralı metindir ve yeterince uzundur." for number in range(300)]


def write_jsonl(path, records):
    lines = [json.dumps({"text": each} if isinstance(each, str) else each, ensure_ascii=False) for each in records]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def recipe(*sources, **changes):
    sources = [source if isinstance(source, dict) else {"path": source} for source in sources]
    plain = {"filters": "none", "duplicates": {"near": False, "paragraphs": False}}  # the texts here are all alike
    return CorpusSettings(sources=sources, **{"min_characters": 10, "heldout_share": 0.2, **plain, **changes})


def texts_of(corpus):
    return list(read_texts(corpus.train)), list(read_texts(corpus.heldout))


def tree(folder):
    """Every file below a folder with its bytes, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def source(tmp_path):
    return write_jsonl(tmp_path / "source.jsonl", TEXTS)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "runs" / "corpus"


def test_the_folder_holds_both_parts_a_report_and_the_quarantine(source, out):
    corpus = build_corpus(recipe(source), out)
    assert sorted(tree(out)) == [
        "heldout.jsonl.gz", "manifest.json", "quarantine.jsonl", "report.json", "train.jsonl.gz",
    ]  # fmt: skip
    assert json.loads((out / "report.json").read_text(encoding="utf-8")) == corpus.report
    assert open_corpus(out) == corpus
    assert list(out.parent.iterdir()) == [out]


def test_every_text_is_in_exactly_one_part(source, out):
    corpus = build_corpus(recipe(source), out)
    train, heldout = texts_of(corpus)
    assert sorted(train + heldout) == sorted(TEXTS)
    assert (len(train), len(heldout)) == (corpus.report["train"], corpus.report["heldout"])


def test_about_the_asked_share_is_held_out(source, out):
    # 300 draws at 0.2: five standard deviations are 35.
    assert abs(build_corpus(recipe(source), out).report["heldout"] - 60) < 35
    assert build_corpus(recipe(source, heldout_share=0), out).report["heldout"] == 0


def test_the_split_does_not_depend_on_the_order_of_texts_or_sources(tmp_path, source, out):
    halves = [write_jsonl(tmp_path / f"{name}.jsonl", part) for name, part in (("a", TEXTS[150:]), ("b", TEXTS[:150]))]
    once, twice = (texts_of(build_corpus(recipe(*sources), out)) for sources in ([source], halves))
    assert [set(part) for part in once] == [set(part) for part in twice]
    assert once != twice  # the files do follow the sources


def test_a_text_keeps_its_side_when_others_come_or_go(tmp_path, source, out):
    _, heldout = texts_of(build_corpus(recipe(source), out))
    fewer = write_jsonl(tmp_path / "fewer.jsonl", TEXTS[::3])
    assert set(texts_of(build_corpus(recipe(fewer), out))[1]) == set(heldout) & set(TEXTS[::3])


def test_a_larger_share_only_adds_to_what_is_held_out(source, out):
    small, large = (set(texts_of(build_corpus(recipe(source, heldout_share=share), out))[1]) for share in (0.1, 0.3))
    assert small < large


def test_another_seed_holds_out_other_texts(source, out):
    first, second = (texts_of(build_corpus(recipe(source, seed=seed), out))[1] for seed in (0, 1))
    assert set(first) != set(second)


def test_the_same_recipe_twice_gives_the_same_bytes(source, out, monkeypatch):
    corpus = build_corpus(recipe(source), out)
    before = tree(out)
    monkeypatch.setattr("time.time", lambda: 2e9)  # later; gzip would like to write down when
    assert build_corpus(recipe(source), out).report == corpus.report
    assert tree(out) == before
    assert tree(build_corpus(recipe(source), out.with_name("elsewhere")).folder) == before


def test_the_fingerprint_changes_with_any_text_and_with_the_split(tmp_path, out):
    def fingerprint(records, **changes):
        path = write_jsonl(tmp_path / "x.jsonl", records)
        return build_corpus(recipe(path, **changes), out).report["fingerprint"]

    train, heldout = texts_of(build_corpus(recipe(write_jsonl(tmp_path / "x.jsonl", TEXTS)), out))
    ordered = train + heldout  # held-out texts come last, so without the split the bytes follow each other alike
    prints = [
        fingerprint(ordered),
        fingerprint(ordered, heldout_share=0),
        fingerprint(ordered[1:]),
        fingerprint([ordered[0] + "!", *ordered[1:]]),
    ]
    assert len(set(prints)) == len(prints)
    assert fingerprint(ordered) == prints[0]


def test_texts_that_are_equal_in_their_normal_form_are_one(tmp_path, out):
    spellings = [
        "I\u0307stanbul  güzel bir şehirdir.",
        "İstanbul güzel bir şehirdir.",
        "\ufeffİstanbul güzel\u00a0bir şehirdir.\r\n",
    ]
    corpus = build_corpus(recipe(write_jsonl(tmp_path / "x.jsonl", spellings), heldout_share=0), out)
    assert texts_of(corpus)[0] == ["İstanbul güzel bir şehirdir."]
    assert corpus.report["dropped"] == {"exact duplicate": 2}


def test_of_equal_texts_in_two_sources_the_first_source_has_it(tmp_path, source, out):
    other = write_jsonl(tmp_path / "other.jsonl", TEXTS[:10])
    corpus = build_corpus(recipe({"path": source, "name": "ilk"}, {"path": other, "name": "son"}), out)
    assert corpus.report["by_source"] == {"ilk": 300}


def test_near_empty_texts_and_texts_without_letters_are_dropped(tmp_path, out):
    path = write_jsonl(tmp_path / "x.jsonl", [TEXTS[0], "kısa", "", "    \n  ", "1234567890123", "x" * 100])
    corpus = build_corpus(recipe(path, max_characters=90), out)
    assert corpus.report["dropped"] == {"no letters": 3, "near-empty": 1, "too long": 1}
    assert (corpus.report["read"], corpus.report["kept"]) == (6, 1)


def test_length_is_counted_after_normalisation(tmp_path, out):
    path = write_jsonl(tmp_path / "x.jsonl", [TEXTS[0], "a" + " " * 50 + "b", "\u200b" * 50 + "ab"])
    assert build_corpus(recipe(path), out).report["dropped"] == {"near-empty": 2}


def test_broken_records_are_quarantined_with_their_place_and_counted(tmp_path, out):
    path = tmp_path / "x.jsonl"
    path.write_text(
        json.dumps({"text": TEXTS[0]}) + '\n{"text": \n[1]\n{"text": 5}\n{"other": "x"}\n', encoding="utf-8"
    )
    corpus = build_corpus(recipe(path), out)
    assert corpus.report["dropped"] == {}
    assert (corpus.report["read"], corpus.report["quarantined"], corpus.report["kept"]) == (5, 4, 1)
    quarantine = [json.loads(line) for line in (out / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [fault["place"] for fault in quarantine] == [f"{path}:{line}" for line in (2, 3, 4, 5)]
    assert all(fault["reason"] for fault in quarantine)


RECORDS = st.one_of(
    st.sampled_from(TEXTS[:5]).map(lambda text: {"text": text, "set": "a"}),
    st.sampled_from(TEXTS[3:8]).map(lambda text: {"text": text, "set": "b"}),
    st.sampled_from([{"text": "kısa"}, {"text": "123 456 789 000"}, {"text": 5}, {}, {"text": "é" * 99}, [1], None]),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    records=st.lists(RECORDS, max_size=20),
    where=st.sampled_from([{}, {"set": ["a"]}]),
    exclude=st.sampled_from([{}, {"set": ["b"]}]),
    sample=st.sampled_from([1.0, 0.5]),
)
def test_what_is_read_is_kept_or_dropped_for_a_reason(tmp_path, records, where, exclude, sample):
    path = write_jsonl(
        tmp_path / "x.jsonl", [{"text": TEXTS[299], "set": "a"}, *records, {"text": TEXTS[298], "set": "a"}]
    )
    source = {"path": path, "where": where, "exclude": exclude, "sample": sample, "name": "s"}
    always = {"path": write_jsonl(tmp_path / "y.jsonl", [TEXTS[297]]), "name": "t"}
    report = build_corpus(recipe(source, always, max_characters=90), tmp_path / "corpus").report
    assert report["read"] == len(records) + 3
    assert report["read"] == report["kept"] + report["quarantined"] + sum(report["dropped"].values())
    assert report["kept"] == report["train"] + report["heldout"] == sum(report["by_source"].values())


def test_where_keeps_and_exclude_leaves_out(tmp_path, out):
    records = [{"text": TEXTS[n], "set": "abc"[n % 3], "lang": "tr" if n < 150 else "en"} for n in range(300)]
    records.append({"text": TEXTS[0] + " Kümesi yok."})
    path = write_jsonl(tmp_path / "x.jsonl", records)

    def kept(**source):
        train, heldout = texts_of(build_corpus(recipe({"path": path, **source}), out))
        return set(train) | set(heldout)

    def expected(condition):
        return {record["text"] for record in records if condition(record.get("set"), record.get("lang"))}

    assert kept(where={"set": ["a", "b"]}) == expected(lambda group, lang: group in ("a", "b"))
    assert kept(where={"set": ["a"], "lang": ["tr"]}) == expected(lambda group, lang: group == "a" and lang == "tr")
    assert kept(exclude={"set": ["a"], "lang": ["tr"]}) == expected(lambda group, lang: group != "a" and lang != "tr")
    assert kept(where={"set": ["a"]}, exclude={"lang": ["tr"]}) == expected(lambda g, lang: g == "a" and lang != "tr")


def test_numbers_and_truth_are_asked_for_as_they_are_or_as_text(tmp_path, out):
    values = [0, "0", 0.0, 1, True, False, "true", None, 2.5, [0]]
    records = [{"text": text, "label": value} for text, value in zip(TEXTS, values, strict=False)]
    path = write_jsonl(tmp_path / "x.jsonl", [*records, TEXTS[299]])

    def kept(**source):
        return {TEXTS.index(text) for part in texts_of(build_corpus(recipe({"path": path, **source}), out))
                for text in part}  # fmt: skip

    assert kept(where={"label": [0]}) == kept(where={"label": ["0"]}) == {0, 1, 2}
    assert kept(where={"label": [True]}) == {4, 6}
    assert kept(where={"label": [1, 2.5]}) == {3, 8}
    assert kept(exclude={"label": [0, False, True]}) == {3, 7, 8, 9, 299}


def test_a_record_that_was_not_asked_for_is_no_broken_record(tmp_path, out):
    path = write_jsonl(tmp_path / "x.jsonl", [{"text": TEXTS[0], "set": "a"}, {"set": "b"}])
    corpus = build_corpus(recipe({"path": path, "where": {"set": ["a"]}}), out)
    assert corpus.report["dropped"] == {"not asked for": 1}


def test_a_sample_is_a_share_chosen_by_text_not_by_place(tmp_path, source, out):
    def sample(path):
        train, heldout = texts_of(build_corpus(recipe({"path": path, "sample": 0.5}), out))
        return set(train) | set(heldout)

    chosen = sample(source)
    assert abs(len(chosen) - 150) < 45  # five standard deviations
    assert sample(write_jsonl(tmp_path / "turned.jsonl", TEXTS[::-1])) == chosen
    corpus = build_corpus(recipe({"path": source, "sample": 0.5}), out)
    assert corpus.report["dropped"] == {"not in the sample": 300 - len(chosen)}


def test_sample_and_split_are_drawn_apart(source, out):
    # Were they one draw, the texts below 0.2 would all be sampled, and all of them held out.
    corpus = build_corpus(recipe({"path": source, "sample": 0.2}), out)
    assert 0 < corpus.report["heldout"] < corpus.report["train"]


def test_max_records_stops_reading(tmp_path, out):
    path = write_jsonl(tmp_path / "x.jsonl", [*TEXTS[:5], [1], *TEXTS[5:]])  # the sixth line is broken
    corpus = build_corpus(recipe({"path": path, "max_records": 5}), out)
    assert corpus.report["by_source"] == {str(path): 5}
    assert (corpus.report["dropped"], corpus.report["quarantined"]) == ({}, 0)
    assert build_corpus(recipe({"path": path, "max_records": 9999}), out).report["kept"] == 300


def test_max_documents_is_a_cap_on_what_stays_chosen_by_text_not_by_place(tmp_path, source, out):
    def chosen(path, most):
        corpus = build_corpus(recipe({"path": path, "max_documents": most}), out)
        return set().union(*texts_of(corpus)), corpus.report["dropped"]

    texts, dropped = chosen(source, 50)
    assert (len(texts), dropped) == (50, {"above the cap": 250})
    assert chosen(write_jsonl(tmp_path / "turned.jsonl", TEXTS[::-1]), 50)[0] == texts
    assert texts < chosen(source, 100)[0]
    repeated = write_jsonl(tmp_path / "twice.jsonl", TEXTS + TEXTS)
    assert chosen(repeated, 50) == (texts, {"above the cap": 250, "exact duplicate": 300})
    assert chosen(source, 9999) == (set(TEXTS), {})


def test_a_weight_repeats_training_texts_and_never_held_out_ones(source, out):
    once = build_corpus(recipe(source), out)
    train, heldout = texts_of(once)
    corpus = build_corpus(recipe({"path": source, "weight": 2.5}), out)
    often, still = texts_of(corpus)
    assert still == heldout
    assert set(often) == set(train)
    assert set(Counter(often).values()) == {2, 3}
    assert len(often) == len(train) + corpus.report["copies"]
    assert abs(len(often) / len(train) - 2.5) < 0.2
    assert corpus.report["kept"] == once.report["kept"]


def test_a_weight_below_one_drops_training_texts_with_a_reason(source, out):
    _, heldout = texts_of(build_corpus(recipe(source), out))
    corpus = build_corpus(recipe({"path": source, "weight": 0.25}), out)
    report = corpus.report
    assert report["dropped"]["weight below 1"] == 300 - report["kept"]
    assert 0 < report["train"] < 120
    assert texts_of(corpus)[1] == heldout


@pytest.mark.parametrize("near", [False, True])
@pytest.mark.parametrize(("limit", "most"), [({"max_documents": 5}, 5), ({"weight": 0.05}, 40)])
def test_a_text_that_one_source_leaves_out_stays_in_another(tmp_path, source, out, near, limit, most):
    words = [" ".join(f"kelime{number}ve{place}" for place in range(9)) for number in range(60)]
    first, second = (write_jsonl(tmp_path / f"{name}.jsonl", words + words) for name in "ab")
    sources = {"path": first, "name": "A", **limit}, {"path": second, "name": "B"}
    duplicates = {"near": near, "paragraphs": False}
    corpus = build_corpus(recipe(*sources, duplicates=duplicates, heldout_share=0), out)
    assert sorted(texts_of(corpus)[0]) == sorted(words)
    assert 0 < corpus.report["by_source"].get("A", 0) <= most
    turned = build_corpus(recipe(*sources[::-1], duplicates=duplicates, heldout_share=0), out)
    assert turned.report["by_source"] == {"B": 60}


def test_two_caps_each_choose_among_what_the_other_leaves(tmp_path, out):
    files = [write_jsonl(tmp_path / f"{name}.jsonl", TEXTS) for name in "ab"]
    sources = [{"path": path, "name": path.stem, "max_documents": 50} for path in files]
    corpus = build_corpus(recipe(*sources, heldout_share=0), out)
    assert corpus.report["by_source"] == {"a": 50, "b": 50}
    assert len(set(texts_of(corpus)[0])) == 100


def test_a_text_that_nothing_could_read_back_is_too_long_and_makes_no_other_go(tmp_path, out, monkeypatch):
    monkeypatch.setattr("diffutron.corpus.steps.LONGEST_LINE", 400)
    long = {"text": TEXTS[0] * 2, "license": "x" * 300}
    path = write_jsonl(tmp_path / "x.jsonl", [long, TEXTS[0] * 2, TEXTS[1]])
    corpus = build_corpus(recipe(path, max_characters=None, heldout_share=0), out)
    assert corpus.report["dropped"] == {"too long": 1}
    assert texts_of(corpus)[0] == [TEXTS[0] * 2, TEXTS[1]]


def test_a_record_keeps_what_it_says_of_its_origin_and_the_source_fills_the_rest(tmp_path, out):
    path = write_jsonl(
        tmp_path / "x.jsonl", [{"text": TEXTS[0], "license": "CC0", "domain": "news"}, {"text": TEXTS[1]}]
    )
    source = {"path": path, "name": "kaynak", "license": "MIT", "domain": "web"}
    corpus = build_corpus(recipe(source, heldout_share=0), out)
    with gzip.open(corpus.train, "rt", encoding="utf-8") as stream:
        records = [json.loads(line) for line in stream]
    assert records == [
        {"text": TEXTS[0], "source": "kaynak", "license": "CC0", "domain": "news"},
        {"text": TEXTS[1], "source": "kaynak", "license": "MIT", "domain": "web"},
    ]
    assert corpus.report["licenses"] == {"CC0": 1, "MIT": 1}


def test_sources_of_every_kind_are_read_into_one_corpus(tmp_path, out):
    folder = tmp_path / "data"
    folder.mkdir()
    write_jsonl(folder / "a.jsonl", TEXTS[:2])
    (folder / "b.txt").write_text("\n\n".join(TEXTS[2:4]), encoding="utf-8")
    content = tmp_path / "c.jsonl"
    write_jsonl(content, [{"content": TEXTS[4]}])
    corpus = build_corpus(recipe(folder, {"path": content, "text_field": "content"}, heldout_share=0), out)
    assert texts_of(corpus)[0] == TEXTS[:5]


@pytest.fixture
def finished(source, out):
    """A corpus that stands already, and its files."""
    build_corpus(recipe(source), out)
    return tree(out.parent)


def test_a_missing_source_is_found_before_anything_is_read(tmp_path, source, out, finished, monkeypatch):
    def refuse(*_):
        raise AssertionError("read before looking")

    monkeypatch.setattr("diffutron.corpus.source_records.read_records", refuse)
    with pytest.raises(DataError, match=r"yok\.jsonl does not exist"):
        build_corpus(recipe(source, tmp_path / "yok.jsonl"), out)
    assert tree(out.parent) == finished


def test_a_file_that_is_rotten_is_quarantined_and_the_run_goes_on(tmp_path, source, out):
    (tmp_path / "z.parquet").write_bytes(b"PAR1 rotten PAR1")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(json.dumps({"text": TEXTS[0] * 50}).encode())[:-20])
    report = build_corpus(recipe(source, tmp_path / "z.parquet", tmp_path / "cut.jsonl.gz"), out).report
    assert (report["kept"], report["quarantined"]) == (300, 2)
    quarantine = [json.loads(line) for line in (out / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [Path(fault["place"]).name for fault in quarantine] == ["z.parquet", "cut.jsonl.gz"]


def test_what_an_interrupted_build_finished_is_not_done_again(tmp_path, source, out, finished, monkeypatch):
    other = write_jsonl(tmp_path / "x.jsonl", [text + " Tekrar." for text in TEXTS])
    digest, read = digest_of, list[str]()

    def watch(file):
        read.append(file.name)
        if file.name == "x.jsonl" and read.count("x.jsonl") == 1:
            raise KeyboardInterrupt
        return digest(file)

    monkeypatch.setattr("diffutron.corpus.steps.digest_of", watch)
    with pytest.raises(KeyboardInterrupt):
        build_corpus(recipe(source, other), out)
    assert tree(out) == {name.removeprefix("corpus/"): content for name, content in finished.items()}
    corpus = build_corpus(recipe(source, other), out)
    assert read == ["source.jsonl", "x.jsonl", "x.jsonl"]
    assert list(out.parent.iterdir()) == [out]
    assert corpus == build_corpus(recipe(source, other), out.with_name("elsewhere")).__class__(out, corpus.report)


def test_a_changed_recipe_or_file_starts_afresh(tmp_path, source, out, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    for change in ({"seed": 1}, {}):
        with monkeypatch.context() as patch:
            patch.setattr("diffutron.corpus.build._join", stop)
            with pytest.raises(KeyboardInterrupt):
                build_corpus(recipe(source, heldout_share=0), out)
        if not change:
            write_jsonl(source, TEXTS[:7])
        assert build_corpus(recipe(source, heldout_share=0, **change), out).report["kept"] == (300 if change else 7)


def test_two_builds_of_one_folder_do_not_work_at_once(source, out):
    with _only_build(plan_build(recipe(source), out)), pytest.raises(DataError, match="another build is at work"):
        build_corpus(recipe(source), out)


def test_the_result_does_not_depend_on_the_workers(tmp_path, out, monkeypatch):
    for name in "abcd":
        write_jsonl(tmp_path / f"{name}.jsonl", [f"{text} {name if n % 3 else ''}" for n, text in enumerate(TEXTS)])
    ways = [{"max_documents": 90}, {"weight": 0.5}, {"max_documents": 70, "weight": 2.5}, {}]
    sources = [{"path": tmp_path / f"{name}.jsonl", **way} for name, way in zip("abcd", ways, strict=True)]
    alone = build_corpus(recipe(*sources), out)
    before = tree(out)
    for workers in (2, 3):
        together = build_corpus(recipe(*sources, executor={"kind": "local", "workers": workers}), out)
        assert together.report == alone.report
        assert tree(out) == before


def test_a_file_without_seams_is_shared_among_tasks_and_nothing_is_lost(tmp_path, out, monkeypatch):
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(json.dumps({"text": text}).encode() + b"\n" for text in TEXTS)))
    monkeypatch.setattr("diffutron.corpus.plan.TASK_BYTES", path.stat().st_size // 3)
    assert len(plan_build(recipe(path), out).tasks) > 3
    train, heldout = texts_of(build_corpus(recipe(path), out))
    assert sorted(train + heldout) == sorted(TEXTS)


@pytest.mark.parametrize("moment", ["gzip.GzipFile.write", "pathlib.Path.rename"])
def test_a_full_disk_is_an_error_of_one_line_that_keeps_the_old_corpus(source, out, finished, monkeypatch, moment):
    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(moment, refuse)
    with pytest.raises(StorageError) as caught:
        build_corpus(recipe(source, seed=1), out)
    monkeypatch.undo()
    assert str(caught.value).startswith(str(out.parent))
    assert "could not be written: No space left on device; mend space" in str(caught.value)
    assert tree(out) == {name.removeprefix("corpus/"): content for name, content in finished.items()}
    build_corpus(recipe(source), out)
    assert tree(out.parent) == finished


def test_the_old_corpus_survives_when_the_new_one_cannot_take_its_place(source, out, finished, monkeypatch):
    rename = Path.rename

    def refuse_the_draft(self, target):
        if Path(target) == out and self.suffix == ".tmp":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse_the_draft)
    with pytest.raises(StorageError, match="Input/output error"):
        build_corpus(recipe(source, seed=1), out)
    monkeypatch.undo()
    assert tree(out) == {name.removeprefix("corpus/"): content for name, content in finished.items()}
    build_corpus(recipe(source), out)
    assert tree(out.parent) == finished


def test_a_finished_corpus_is_replaced_as_a_whole(tmp_path, out, finished):
    corpus = build_corpus(recipe(write_jsonl(tmp_path / "x.jsonl", TEXTS[:3]), heldout_share=0), out)
    assert texts_of(corpus) == (TEXTS[:3], [])
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize("content", ["[1]\n", '{"text": "kısa"}\n', "", "\n\n"])
def test_sources_that_leave_nothing_are_an_error(tmp_path, out, content):
    path = tmp_path / "x.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="no document is left of ") as caught:
        build_corpus(recipe(path), out)
    message = str(caught.value)
    assert {"[1]\n": "1 quarantined", '{"text": "kısa"}\n': "near-empty"}.get(content, "are empty") in message
    assert not any(out.parent.glob("*"))
    assert not any(out.parent.glob(".*"))


@pytest.mark.parametrize(
    ("kind", "error", "told"),
    [
        ("folder", DataError, "exists and is not a corpus; choose another folder"),
        ("file", InputError, "corpus is a file; choose another folder"),
    ],
)
def test_what_exists_and_is_no_corpus_is_never_replaced(source, out, kind, error, told):
    out.parent.mkdir()
    if kind == "folder":
        out.mkdir()
        (out / "tez.docx").write_text("the only copy")
    else:
        out.write_text("the only copy")
    before = tree(out.parent)
    with pytest.raises(error, match=told):
        build_corpus(recipe(source), out)
    assert tree(out.parent) == before


def test_what_lies_beside_a_corpus_is_never_lost(source, out, finished):
    (out / "report.html").write_text("a page that is made of the corpus")
    build_corpus(recipe(source), out)
    assert tree(out.parent) == finished
    (out / "notlar.txt").write_text("the only copy")
    before = tree(out.parent)
    with pytest.raises(DataError, match=r"notlar\.txt is no part of a corpus and would be lost"):
        build_corpus(recipe(source), out)
    assert tree(out.parent) == before


def test_a_report_of_something_else_makes_no_corpus_of_a_folder(source, out):
    out.mkdir(parents=True)
    (out / "report.json").write_text('{"models": []}')
    with pytest.raises(DataError, match="exists and is not a corpus; choose another folder"):
        build_corpus(recipe(source), out)
    assert (out / "report.json").is_file()


def test_a_source_that_changes_while_it_is_read_is_told_and_the_next_build_reads_it_anew(
    tmp_path, source, out, monkeypatch
):
    other = write_jsonl(tmp_path / "other.jsonl", TEXTS[:3])

    def write_and_digest(file):
        digest = digest_of(file)
        if file == other:
            write_jsonl(source, TEXTS[:7])
        return digest

    monkeypatch.setattr("diffutron.corpus.steps.digest_of", write_and_digest)
    with pytest.raises(DataError, match=r"source\.jsonl changed while it was read; run the same command again"):
        build_corpus(recipe(source, other), out)
    assert not out.exists()
    monkeypatch.undo()
    assert build_corpus(recipe(source, other), out).report["kept"] == 7


def test_a_source_that_cannot_be_read_is_named_instead_of_the_output(source, out, monkeypatch):
    def refuse(file):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("diffutron.corpus.read.file_digest", refuse)
    with pytest.raises(DataError, match=r"^data file .*source\.jsonl cannot be read: Permission denied$"):
        build_corpus(recipe(source), out)


def test_a_corpus_that_was_moved_away_before_its_build_was_tidied_up_is_made_again(source, out, monkeypatch):
    remove = shutil.rmtree

    def die(path, **options):
        if Path(path).name == ".corpus.build":
            raise KeyboardInterrupt
        remove(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr("diffutron.corpus.build.shutil.rmtree", die)
        with pytest.raises(KeyboardInterrupt):
            build_corpus(recipe(source), out)
    shutil.move(out, out.with_name("moved"))
    build_corpus(recipe(source), out)
    assert tree(out) == tree(out.with_name("moved"))


def test_no_other_build_comes_in_before_the_folder_of_one_is_gone(source, out, monkeypatch):
    remove, others = shutil.rmtree, list[str]()

    def watch(path, **options):
        if path == plan_build(recipe(source), out).folder:
            with pytest.raises(DataError, match="another build is at work"):
                build_corpus(recipe(source), out)
            others.append(str(path))
        remove(path, **options)

    monkeypatch.setattr("diffutron.corpus.build.shutil.rmtree", watch)
    build_corpus(recipe(source), out)
    assert len(others) == 1


def test_only_a_corpus_opens_as_one(tmp_path, source, out):
    with pytest.raises(DataError, match=r"is not a corpus; make it with `diffutron data build"):
        open_corpus(tmp_path)
    build_corpus(recipe(source), out)
    for other in ("{", "[]", '{"models": [], "train": 3}'):  # the last as `eval report` writes it
        (out / "report.json").write_text(other)
        with pytest.raises(DataError, match="is not a corpus"):
            open_corpus(out)


def test_progress_comes_to_the_end_of_every_step(tmp_path, out):
    seen = {}
    many = write_jsonl(tmp_path / "x.jsonl", [f"{text} {n}" for text in TEXTS for n in range(4)])
    build_corpus(recipe(many), out, on_progress=lambda progress: seen.update({progress.stage: progress}))
    assert list(seen) == ["read", "match", "settle", "prune", "write", "publish"]
    assert {progress.share for progress in seen.values()} == {1.0}
    assert seen["read"].read == 1200


def test_a_corpus_can_be_moved(source, out, tmp_path):
    corpus = build_corpus(recipe(source), out)
    shutil.move(out, tmp_path / "moved")
    moved = open_corpus(tmp_path / "moved")
    assert moved.report == corpus.report
    assert len(texts_of(moved)[0]) == corpus.report["train"]


def test_an_output_inside_what_is_read_is_refused_before_it_is_there(source, tmp_path):
    (tmp_path / "sets").mkdir()
    evaluation = write_jsonl(tmp_path / "sets" / "set.jsonl", TEXTS[:1])
    with pytest.raises(DataError, match=r"lies inside .* and would be read too"):
        build_corpus(recipe(tmp_path), tmp_path / "runs" / "corpus")
    with pytest.raises(DataError, match=r"lies inside .* and would be read too"):
        build_corpus(recipe(source, decontaminate=[{"path": evaluation.parent}]), evaluation.parent / "corpus")
    corpus = build_corpus(recipe(source), tmp_path / "corpus")
    with pytest.raises(DataError, match=r"train\.jsonl\.gz lies inside .* and would be lost"):
        build_corpus(recipe(corpus.train), corpus.folder)


@pytest.mark.parametrize("here", [".", "..", "/"])
def test_the_folder_that_one_works_in_is_refused_before_anything_is_read(source, tmp_path, monkeypatch, here):
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    with pytest.raises(DataError, match="is the folder that you are in, or holds it"):
        build_corpus(recipe(source), Path(here))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_build_that_died_between_two_stages_goes_on(tmp_path, out, workers):
    """Every task of a stage is marked as done, and the next stage was not begun: nothing is left to do for it."""
    from diffutron.corpus.execute import LocalExecutor, Stage

    stage = Stage("read", [], num_tasks=3)
    logs = tmp_path / "logs"
    LocalExecutor(stage, 1, logs).run()
    LocalExecutor(stage, workers, logs).run()
    assert LocalExecutor(stage, workers, logs).get_incomplete_ranks() == []


def test_source_may_be_judged_otherwise_than_the_corpus(tmp_path, out):
    # Texts of another language among Turkish ones: what is made for Turkish would drop or "repair" them.
    german = "Der schnelle braune Fuchs springt über den faulen Hund und läuft dann weit in den dunklen Wald hinein."
    turkish = "Hızlı kahverengi tilki tembel köpeğin üzerinden atlar ve sonra karanlık ormanın derinliklerine koşar."
    sources = {"kept": [german], "dropped": [german.replace("braune", "rote")], "turkish": [turkish]}
    for name, texts in sources.items():
        write_jsonl(tmp_path / f"{name}.jsonl", texts)
    corpus = build_corpus(
        recipe(
            {"path": tmp_path / "kept.jsonl", "filters": "none", "cleaning": "none"},
            {"path": tmp_path / "dropped.jsonl"}, {"path": tmp_path / "turkish.jsonl"},
            filters={"language": True}, heldout_share=0.0,
        ),
        out,
    )  # fmt: skip
    assert sorted(texts_of(corpus)[0]) == sorted([german, turkish])
    assert corpus.report["dropped"] == {"language": 1}


@pytest.mark.parametrize(("content", "fields", "says"), [
    ('{"premise": "Bir cümle."}', ["text"], r"no text in 'text'; its records have premise; set text_fields"),
    ('{"premise": "Bir cümle."}', ["premise", "premis"], r"no text in 'premis'; its records have premise"),
    ("", ["text"], "there are no records"),
])  # fmt: skip
def test_evaluation_set_that_says_nothing_is_refused(tmp_path, source, out, content, fields, says):
    # Every text would count as clean of it.
    (tmp_path / "xcopa.jsonl").write_text(content, encoding="utf-8")
    evaluation = [{"path": tmp_path / "xcopa.jsonl", "text_fields": fields}]
    with pytest.raises(DataError, match=says):
        build_corpus(recipe(source, decontaminate=evaluation), out)


def test_sources_of_one_name_keep_their_own_weights(tmp_path, out):
    records = [{"text": text, "kind": "ab"[number % 2]} for number, text in enumerate(TEXTS)]
    source = write_jsonl(tmp_path / "source.jsonl", records)
    corpus = build_corpus(
        recipe({"path": source, "where": {"kind": ["a"]}, "weight": 3}, {"path": source, "where": {"kind": ["b"]}},
               heldout_share=0.0),
        out,
    )  # fmt: skip
    assert sorted(Counter(texts_of(corpus)[0]).values()) == [1] * 150 + [3] * 150


def test_paragraph_that_goes_leaves_the_other_breaks_as_they_are():
    from diffutron.corpus.duplicates import paragraph_keys
    from diffutron.corpus.steps import without_paragraphs

    text = "Başlık\n\nbirinci paragraf\n\nikinci paragraf\nüçüncü paragraf\n\ndördüncü"
    keys = {text[start:end]: key for key, start, end in paragraph_keys(text, 1)}
    gone = "Başlık\n\nikinci paragraf\nüçüncü paragraf\n\ndördüncü"
    assert without_paragraphs(text, {keys["birinci paragraf"]}, 1) == gone
    assert without_paragraphs(text, {keys["dördüncü"], keys["Başlık"]}, 1).startswith("birinci paragraf\n\nikinci")
    assert without_paragraphs(text, set(), 1) == text


def test_corpus_knows_which_of_its_inputs_has_changed(tmp_path, source, out):
    evaluation = write_jsonl(tmp_path / "evaluation.jsonl", ["Bu cümle yalnızca değerlendirme kümesinde vardır."])
    corpus = build_corpus(recipe(source, decontaminate=[{"path": evaluation}]), out)
    assert changed_input(corpus) is None
    for file in (source, evaluation):
        before = file.read_bytes()
        file.write_bytes(before)  # younger than the corpus, and the same
        assert changed_input(corpus) is None
        file.write_bytes(before + b'{"text": "Yeni bir metin daha eklendi."}\n')
        assert changed_input(corpus) == file
        file.write_bytes(before)
    older = tmp_path / "older"
    older.write_bytes(b'{"text": "Daha eski bir dosya yerine geldi."}\n')
    os.utime(older, (0, 0))
    kept = source.read_bytes()
    older.replace(source)
    assert changed_input(corpus) == source
    source.write_bytes(kept)
    source.unlink()
    assert changed_input(corpus) is None


def test_corpus_knows_that_the_tokenizer_or_the_dictionary_has_changed_by_which_its_texts_were_judged(
    tmp_path, source, out
):
    pytest.importorskip("hunspell")
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "tr.aff").write_text("SET UTF-8\n", encoding="utf-8")
    (tmp_path / "tr.dic").write_text("2\nbu\nmetindir\n", encoding="utf-8")
    filters = {"dictionary": tmp_path / "tr.dic", "valid_words": 0.1, "language": False, "repetition": False}
    judged = recipe(source, filters=filters, token_length={"tokenizer": str(tmp_path / "tokenizer")})
    corpus = build_corpus(judged, out)
    assert changed_input(corpus) is None
    before = identity(plan_build(judged, out), {})
    for file in (tmp_path / "tokenizer" / "tokenizer.json", tmp_path / "tr.dic", tmp_path / "tr.aff"):
        content = file.read_bytes()
        file.write_bytes(content + b"\n")
        assert changed_input(corpus) == file
        assert identity(plan_build(judged, out), {}) != before
        file.write_bytes(content)


def test_versions_name_the_libraries_that_are_installed(monkeypatch):
    def version(name):
        if name == "mwparserfromhell":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr("importlib.metadata.version", version)
    assert {"tokenizers", "pyarrow", "datatrove"} <= versions().keys()
    assert "mwparserfromhell" not in versions()
