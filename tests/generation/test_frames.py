"""What people see of the steps is what the sampler did."""

import io
import json

import pytest
from rich.console import Console

from diffutron.cli.watch import HIDDEN, Watcher
from diffutron.errors import DataError, InputError
from diffutron.generation import Generator, Request, SamplerSettings
from diffutron.generation.frames import Frames, TraceFile, read_trace
from diffutron.testing import tiny_codec, tiny_denoiser, tiny_folder

CODEC = tiny_codec()
REQUESTS = [Request("Ankara'da", 8, seed=1), Request("", 6, seed=2)]


def steps(**settings):
    return list(Generator(tiny_denoiser(), CODEC).steps(REQUESTS, SamplerSettings(**settings)))


def readable(cells):
    return "".join(HIDDEN if each.text is None else each.text for each in cells)


def test_last_frame_reads_as_the_completion_and_every_written_piece_has_a_confidence():
    generator = Generator(tiny_denoiser(), CODEC)
    frames, last = Frames(CODEC), {}
    completions = generator.complete(
        REQUESTS, SamplerSettings(), lambda step: last.update({step.row: frames.frame(step)})
    )
    for row, completion in enumerate(completions):
        cells = last[row].cells
        assert readable(cells).strip() == completion.text.strip()
        given = [each for each in cells if each.confidence is None]
        assert "".join(each.text for each in given) == completion.prompt
        assert all(0 < each.confidence <= 1 for each in cells if each.confidence is not None)


def test_what_is_hidden_again_is_shown_hidden():
    frames, seen = Frames(CODEC), 0
    for step in steps(revision="cap:0.9", steps=20, block_length=8):
        cells = frames.frame(step).cells
        assert sum(each.text is None for each in cells) == step.tokens.count(CODEC.mask_id)
        seen += len(step.hidden_again)
    assert seen


@pytest.mark.parametrize("terminal", [True, False])
def test_watching_shows_the_text_and_a_trace_keeps_it(tmp_path, terminal):
    shown, trace = io.StringIO(), tmp_path / "trace.jsonl"
    console = Console(file=shown, force_terminal=terminal, width=80)
    taken = steps()
    with Watcher(CODEC, watch=True, trace=trace, asked={"model": "İğde"}, console=console) as watcher:
        for step in taken:
            watcher(step)
    frames = Frames(CODEC)
    expected = [frames.frame(step) for step in taken]
    asked, kept = read_trace(trace)
    assert asked["model"] == "İğde"
    assert [(each.row, each.step, readable(each.cells)) for each in kept] == [
        (each.row, each.step, readable(each.cells)) for each in expected
    ]
    if terminal:
        assert "\x1b[" in shown.getvalue()
    else:
        assert shown.getvalue().splitlines() == [f"{f.row + 1}.{f.step:03d} {readable(f.cells)}" for f in expected]


def test_each_draft_has_a_row_of_its_own(tmp_path, cli):
    (tmp_path / "drafts.jsonl").write_text('{"prompt": "Ali eve gitti."}\n{"prompt": "deniz ve ev"}\n')
    asked = ("--prompts", tmp_path / "drafts.jsonl", "--share", "1", "--trace", tmp_path / "trace.jsonl", "--watch")
    cli("generate", "--revise", "--model", tiny_folder(tmp_path / "tiny"), *asked)
    _, kept = read_trace(tmp_path / "trace.jsonl")
    assert {each.row for each in kept} == {0, 1}


def test_page_holds_every_step_and_lets_no_text_become_markup(tmp_path, cli):
    trace = tmp_path / "trace.jsonl"
    lines = [
        {"format": 1, "model": "</h1><b>"},
        {"row": 0, "step": 1, "cells": [["</script><i>"], [None], [" ev", 0.5]]},
    ]
    trace.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    cli("render", trace)
    page = (tmp_path / "trace.html").read_text(encoding="utf-8")
    assert "<i>" not in page
    assert "<b>" not in page
    held = page.split('id="trace">')[1].split("</script>")[0]
    assert json.loads(held) == [[[["</script><i>"], [None], [" ev", 0.5]]]]


@pytest.mark.parametrize(("content", "message"), [
    ("", "not a trace"), ("{}\n", "not a trace"), ('{"format": 9}\n', "has format 9"), ("[1]\n", "not a trace"),
    ('{"format": 1}\n{"row": 0}\n', "not a trace"), ("[" * 200_000, "not a trace"),
])  # fmt: skip
def test_other_files_are_told_from_traces(tmp_path, content, message):
    file = tmp_path / "x.jsonl"
    file.write_text(content)
    with pytest.raises(DataError, match=message):
        read_trace(file)
    with pytest.raises(DataError, match="cannot be read"):
        read_trace(tmp_path / "none.jsonl")


def test_a_trace_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        Watcher(CODEC, watch=False, trace=tmp_path / "no" / "such", asked={})


def test_a_file_is_written_over_only_when_there_is_a_step(tmp_path):
    old, new = tmp_path / "old.jsonl", tmp_path / "new.jsonl"
    old.write_text("benim", encoding="utf-8")
    for path in (old, new):
        TraceFile(path, {"model": "tiny"}).close()
    assert old.read_text(encoding="utf-8") == "benim"
    assert not new.exists()


def test_a_trace_cut_off_in_its_last_line_is_read(tmp_path):
    trace = tmp_path / "trace.jsonl"
    with Watcher(CODEC, watch=False, trace=trace, asked={}) as watcher:
        for step in steps():
            watcher(step)
    whole = trace.read_text(encoding="utf-8")
    trace.write_text(whole[:-20], encoding="utf-8")
    assert len(read_trace(trace)[1]) == len(whole.splitlines()) - 2


def test_a_page_does_not_take_the_place_of_its_trace(tmp_path, cli):
    trace = tmp_path / "steps.html"
    trace.write_text('{"format": 1}\n', encoding="utf-8")
    assert "would take the place of the trace" in cli("render", trace, code=1).err
    assert trace.read_text(encoding="utf-8") == '{"format": 1}\n'
