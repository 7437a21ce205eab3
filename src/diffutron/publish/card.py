"""Model cards in English and Turkish; every number comes from a report that ``eval report`` wrote."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml

from diffutron.errors import DataError
from diffutron.generation import fill
from diffutron.model import Loaded
from diffutron.publish.source import Source
from diffutron.tokens.codec import TextCodec

FILL_TOLERANCE = 1e-3
"""how far the probability of a fill may be from the report's, as a share: another machine's arithmetic"""


@dataclass(frozen=True)
class Card:
    """What a card is written from.

    Attributes:
        name: what the model is called.
        license: as Hugging Face abbreviates it.
        repository: the hub id it will have, for the code examples; else the folder's name.
        report: what ``eval report`` wrote; empty for a card without numbers.
        is_adapter: whether the adapter is published alone.
        limits: sentences about this model alone, beside the general ones.
    """

    name: str
    license: str
    repository: str
    source: Source
    report: dict[str, Any]
    parameters: int
    dtype: str
    is_adapter: bool = False
    limits: str = ""

    def metadata(self) -> dict[str, Any]:
        """For the hub's index of models."""
        found: dict[str, Any] = {
            "license": self.license, "language": "tr", "library_name": "diffutron", "pipeline_tag": "fill-mask",
            "tags": ["masked-diffusion", "diffusion-language-model", "fill-mask"],
        }  # fmt: skip
        if self.source.base_id:
            found["base_model"] = self.source.base_id
            found["base_model_relation"] = "adapter" if self.is_adapter else "finetune"
        if hubs := sorted({each["hub"] for each in self.source.hub_sources}):
            found["datasets"] = hubs  # the hub takes ids of its own only, and refuses the card for a folder's name
        if self.report:
            found["model-index"] = [{"name": self.name, "results": list(self._results())}]
        return found

    def _results(self) -> Iterator[dict[str, Any]]:
        for each in self.report["sets"]:
            score = each["score"]
            found = (
                ("perplexity", "masked perplexity at 15 %", score["perplexity"], 2),
                ("accuracy", "masked top-1 at 15 %", score["top1"], 4),
                ("bits_per_character", "likelihood bound, bits per character", each["bound"]["bits_per_character"], 3),
            )
            metrics = [{"type": kind, "name": name, "value": round(value, digits)}
                       for kind, name, value, digits in found if value is not None]  # fmt: skip
            dataset = {"name": each["name"], "type": each["name"], "args": {"fingerprint": score["fingerprint"]}}
            yield {"task": {"type": "fill-mask"}, "dataset": dataset, "metrics": metrics}
        for each in self._tasks():
            if each["value"] is not None:
                metrics = [{"type": each["metric"], "name": each["metric"], "value": round(each["value"], 4)}]
                dataset = {"name": each["task"], "type": each["task"], "args": {"fingerprint": each["fingerprint"]}}
                yield {"task": {"type": "multiple-choice"}, "dataset": dataset, "metrics": metrics}

    def _tasks(self) -> list[dict[str, Any]]:
        """The scores of ``eval tasks`` that the report holds."""
        found = [each for each in self.report.get("others", ()) if each["kind"] == "tasks"]
        return [score for each in found for score in each["tasks"]]

    def english(self) -> str:
        head = yaml.safe_dump(self.metadata(), allow_unicode=True, sort_keys=False)
        return f"---\n{head}---\n{self._filled('en')}"

    def turkish(self) -> str:
        return self._filled("tr")

    def _filled(self, language: str) -> str:
        words = _WORDS[language]
        template = files("diffutron.publish").joinpath(f"card.{language}.md").read_text(encoding="utf-8")
        load = _LOAD_MODEL
        if self.is_adapter:
            load = _LOAD_ADAPTER if self.source.base_id else _LOAD_ADAPTER_OF_OURS
        return template.format(**{
            "name": self.name, "repository": self.repository, "parameters": f"{self.parameters / 1e6:.1f}",
            "dtype": self.dtype, "license": self.license, "limits": self.limits and f" {self.limits}",
            "made": self._made(words), "numbers": self._numbers(words), "texts": self._texts(words),
            "load": load.format(repository=self.repository, base=self.source.base),
        })  # fmt: skip

    def _made(self, words: dict[str, str]) -> str:
        manifest = self.source.manifest
        if not manifest:
            return words["no manifest"]
        parts = [words["trained"].format(
            trainable=manifest["trainable_parameters"], parameters=manifest["parameters"],
            precision=manifest.get("machine", {}).get("precision", "float32"),
        )]  # fmt: skip
        if self.source.base:
            parts.append(words["adapter" if self.is_adapter else "merged"].format(base=self.source.base))
        return " ".join(parts)

    def _numbers(self, words: dict[str, str]) -> str:
        if not self.report:
            return words["no numbers"]
        rows = [words["columns"], "|---|---|---|---|---|---|---|---|"]
        for each in self.report["sets"]:
            score, bound = each["score"], each["bound"]
            rows.append(
                f"| {each['name']} | {_told(score['perplexity'], 2)} | "
                f"{_told(score['low'], 2)} – {_told(score['high'], 2)} | {100 * score['top1']:.1f} % | "
                f"{_told(bound['bits_per_character'], 3)} ± {_told(bound['standard_error'], 3)} | "
                f"{score['num_texts']:,} | {score['seed']} | {score['fingerprint']} |"
            )
        if tasks := self._tasks():
            rows += ["", words["tasks"], "|---|---|---|---|---|---|---|---|"]
        for each in tasks:
            value, low, high, chance, majority = (
                _told(None if each[name] is None else 100 * each[name], 1)
                for name in ("value", "low", "high", "chance", "majority")
            )
            rows.append(
                f"| {each['task']}, {each['metric']} | {value} % | {low} – {high} % | {chance} % | {majority} % | "
                f"{each['num_documents']:,} | {each['seed']} | {each['fingerprint']} |"
            )
        return "\n".join(rows)

    def _texts(self, words: dict[str, str]) -> str:
        corpus = self.source.corpus
        if not corpus:
            return words["no corpus"]
        sizes = corpus.get("by_source", {})
        rows = [words["sources"], "|---|---|", *(f"| {name} | {count:,} |" for name, count in sizes.items())]
        licenses = ", ".join(f"{name} ({count:,})" for name, count in corpus.get("licenses", {}).items())
        told = words["licenses"].format(licenses=licenses, fingerprint=corpus.get("fingerprint"))
        return "\n".join([*rows, "", told])


def check_report(report: dict[str, Any], loaded: Loaded) -> None:
    """See that a report is of this model: its size, and the masked sentences that it fills, which are filled again.

    Raises:
        DataError: it is no report, or of another model.
    """
    try:
        size = int(report["num_parameters"])
        fills = {each["text"]: float(each["ways"][0]["score"]) for each in report["fills"]}
        for each in report["sets"]:
            float(each["score"]["num_texts"])
        for each in report.get("others", ()):
            str(each["kind"])
    except (KeyError, IndexError, TypeError, ValueError):
        raise DataError("the report is none that `diffutron eval report` wrote") from None
    parameters = loaded.denoiser.num_parameters
    if size != parameters:
        raise DataError(f"the report is of another model: it has {size:,} parameters, and this one {parameters:,}")
    codec = TextCodec(loaded.tokenizer)
    for text, told in fills.items():
        found = fill(loaded.denoiser, codec, text, top_k=1)[0].score
        if abs(found - told) > FILL_TOLERANCE * found:
            raise DataError(
                f"the report is of other weights: for {text!r} its best fill has probability {told:.3g}, and this "
                f"model's {found:.3g}; measure again with diffutron eval report"
            )


def _told(value: float | None, digits: int) -> str:
    """A number of the report, where it is one: one text has no interval, a broken model no score."""
    return "?" if value is None else f"{value:.{digits}f}"


_LOAD_MODEL = """```python
from transformers import pipeline

fill = pipeline("fill-mask", model="{repository}")
print(fill("Ankara, Türkiye'nin " + fill.tokenizer.mask_token + ".")[0])
```"""
_LOAD_ADAPTER = """```python
from peft import PeftModel
from transformers import AutoModelForMaskedLM

base = AutoModelForMaskedLM.from_pretrained("{base}")
model = PeftModel.from_pretrained(base, "{repository}")
```"""
_LOAD_ADAPTER_OF_OURS = """```python
import diffutron

model = diffutron.load("{base}", adapters=["{repository}"])
print(model.fill("Ankara, Türkiye'nin [MASK].")[0])
```"""

_WORDS = {
    "en": {
        "no manifest": "How it was trained is not recorded.", "no numbers": "Nothing was measured.",
        "trained": "{trainable:,} of {parameters:,} parameters were trained, in {precision}.",
        "adapter": "It is a LoRA adapter of `{base}`.", "merged": "It is `{base}` with a LoRA adapter merged into it.",
        "no corpus": "What it was trained on is not recorded.",
        "columns": "| texts | masked perplexity, 15 % | 95 % interval | top-1 | bound, bits/character | n | seed "
        "| data |",
        "tasks": "| task | score | 95 % interval | chance | majority | n | seed | data |",
        "sources": "| source | documents |",
        "licenses": "Licences of the records: {licenses}. Fingerprint of the corpus: {fingerprint}.",
    },
    "tr": {
        "no manifest": "Nasıl eğitildiği kayıtlı değil.", "no numbers": "Ölçüm yapılmadı.",
        "trained": "{parameters:,} parametrenin {trainable:,} kadarı {precision} ile eğitildi.",
        "adapter": "`{base}` modelinin bir LoRA uyarlamasıdır.",
        "merged": "`{base}` modeline bir LoRA uyarlaması katılarak elde edildi.",
        "no corpus": "Neyle eğitildiği kayıtlı değil.",
        "columns": "| metinler | % 15 maskede şaşkınlık | % 95 aralık | ilk sırada | sınır, bit/karakter | n | tohum "
        "| veri |",
        "tasks": "| görev | puan | % 95 aralık | rastgele | çoğunluk | n | tohum | veri |",
        "sources": "| kaynak | belge |",
        "licenses": "Kayıtların lisansları: {licenses}. Derlemin parmak izi: {fingerprint}.",
    },
}  # fmt: skip
