"""``diffutron render TRACE``: the steps of a trace as one HTML page with a slider, loading nothing from anywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from diffutron.cli.console import note
from diffutron.cli.report import page
from diffutron.storage import check_file, write_bytes

_STEPS = """<style>
  body {{ font-size: 17px; line-height: 1.7; }}
  section {{ border-left: 3px solid #2a9d8f; margin: 1rem 0; padding: .2rem 1rem; white-space: pre-wrap; }}
  .hidden {{ opacity: .35; }} .given {{ font-weight: 600; }}
  .written {{ border-bottom: 3px solid hsl(calc(var(--sure) * 120) 65% 45%); }}
  input {{ width: 100%; }}
</style>
<p><label>Adım / Step <output id="number"></output><input id="step" type="range" min="1" value="1" step="1"></label></p>
<div id="texts"></div>
<p><small>Altı çizgili: modelin yazdığı; yeşil emin, kırmızı değil. Koyu: verilmiş. ░: henüz gizli.
Underlined: written by the model, green where it was sure, red where not. Bold: given. ░: still hidden.</small></p>
<script type="application/json" id="trace">{data}</script>
<script>
  const rows = JSON.parse(document.getElementById("trace").textContent);
  const slider = document.getElementById("step"), texts = document.getElementById("texts");
  slider.max = Math.max(...rows.map(row => row.length));
  function show() {{
    document.getElementById("number").textContent = slider.value + " / " + slider.max;
    texts.replaceChildren(...rows.map(row => {{
      const section = document.createElement("section");
      for (const [text, sure] of row[Math.min(slider.value, row.length) - 1]) {{
        const piece = document.createElement("span");
        piece.textContent = text === null ? "░" : text;
        piece.className = text === null ? "hidden" : sure === undefined ? "given" : "written";
        if (sure !== undefined) {{
          piece.style.setProperty("--sure", sure);
          piece.title = (100 * sure).toFixed(1) + " %";
        }}
        section.append(piece);
      }}
      return section;
    }}));
  }}
  slider.addEventListener("input", show);
  show();
</script>"""


def render(
    trace: Annotated[Path, typer.Argument(help="A file that --trace wrote.")],
    out: Annotated[Path | None, typer.Option(help="The page; beside the trace unless given.")] = None,
) -> None:
    """Make a page with a step slider out of a trace."""
    from diffutron.errors import DataError
    from diffutron.generation.frames import read_trace

    path = out or trace.with_suffix(".html")
    check_file(path)
    if path.resolve() == trace.resolve():
        raise DataError(f"the page would take the place of the trace {trace}; give it another name with --out")
    asked, frames = read_trace(trace)
    if not frames:
        raise DataError(f"the trace {trace} holds no step")
    rows: dict[int, list[Any]] = {}
    for frame in frames:
        rows.setdefault(frame.row, []).append(frame.as_lists)
    data = json.dumps(list(rows.values()), ensure_ascii=False).replace("<", "\\u003c")
    title = f"diffutron: {asked.get('model', trace.name)}"
    write_bytes(path, page(title, _STEPS.format(data=data), language="tr").encode("utf-8"))
    note(f"{len(frames)} steps of {len(rows)} texts")
    print(path)
