"""Fits the weights with which `diffutron restore` adds up its evidence (WEIGHTS in generation/restore.py).

    python scripts/fit_restore.py --data data/tr [--model mini] [--texts 160] [--dictionary FILE.dic]

A conditional logit: of all that a word of texts without marks may have been, the true form is to be the most probable.
Texts are chosen by a hash, are cut to 500 characters, and are not in the lexicon; every second word is fitted, the
others are counted. Prints the weights, and for the words that could have been others the log loss, how many are right
at every confidence, and how many that were right were changed at 0.9.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import diffutron
from diffutron.cli.console import ProgressLine
from diffutron.corpus import read_texts
from diffutron.corpus.draws import text_digest
from diffutron.errors import DataError, DiffutronError
from diffutron.generation import Generator
from diffutron.generation.restore import EVIDENCE, Lexicon, Restorer
from diffutron.generation.well_formed import word_judge
from diffutron.text import normalise
from diffutron.text.spelling import open_dictionary
from diffutron.text.variants import bare

SHORTEST, LONGEST, SURE = 150, 500, 0.9
Case = tuple[NDArray[np.float64], NDArray[np.float64], int]
"""evidence and cost of each form of a word, and which is true"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a file or folder of texts")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--texts", type=int, default=160)
    parser.add_argument("--dictionary", type=Path, help="a Hunspell .dic; the usual ones unless given")
    options = parser.parse_args()
    try:
        fit_all(options)
    except DiffutronError as error:
        sys.exit(f"error: {error}")


def fit_all(options: argparse.Namespace) -> None:
    everything = sorted({normalise(text) for text in read_texts(options.data)}, key=text_digest)
    held = [text for text in everything if len(text) > SHORTEST][: options.texts]
    if not held:
        raise DataError(f"{options.data} holds no text of {SHORTEST} characters")
    lexicon = Lexicon(text for text in everything if text not in set(held))
    model = diffutron.load(options.model)
    generator = Generator(model.denoiser, model.codec)
    judge = word_judge(Path(open_dictionary(options.dictionary).name))
    cases, missed = cases_of(Restorer(generator, is_well_spelled=judge, lexicon=lexicon), held)
    print(f"{len(cases)} words that may have been others; of {missed} more the true form was not among those weighed")
    for has_dictionary in (False, True):
        for has_lexicon in (False, True):
            used = np.array([name not in ("dictionary", "lexicon") for name in EVIDENCE])
            used |= np.array([(name == "dictionary" and has_dictionary) or (name == "lexicon" and has_lexicon)
                              for name in EVIDENCE])  # fmt: skip
            weights = fitted(cases[::2], used)
            told = {
                "dictionary": has_dictionary,
                "lexicon": has_lexicon,
                "weights": [round(each, 2) for each in weights],
            }
            print(json.dumps({**told, **counted(cases[1::2], weights)}))


def cases_of(restorer: Restorer, texts: list[str]) -> tuple[list[Case], int]:
    cases, missed, progress = list[Case](), 0, ProgressLine().counter("restore", "texts")
    for number, text in enumerate(texts, start=1):
        text = text[:LONGEST].rsplit(" ", 1)[0]
        words = restorer.candidates(bare(text))
        for window in restorer.windows(words):
            restorer.weigh(window)
        for word, true in zip(words, text.split(), strict=True):
            if true not in word.forms:
                missed += 1
            elif len(word.forms) > 1:
                cases.append((word.evidence, word.cost, word.forms.index(true)))
        progress(number, len(texts))
    return cases, missed


def fitted(cases: list[Case], used: NDArray[np.bool_]) -> list[float]:
    """The weights of the evidence used with the least log loss; 0 for the rest."""
    longest = max(len(cost) for _, cost, _ in cases)
    evidence = torch.zeros(len(cases), longest, len(used))
    cost = torch.full((len(cases), longest), -torch.inf)
    for row, (each, nats, _) in enumerate(cases):
        evidence[row, : len(each)], cost[row, : len(nats)] = torch.from_numpy(each), torch.from_numpy(nats)
    evidence[..., ~torch.from_numpy(used)] = 0
    true = torch.tensor([each for _, _, each in cases])
    weights = torch.zeros(len(used), requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        found = torch.nn.functional.cross_entropy(evidence @ weights + cost, true) + 1e-4 * weights.square().sum()
        found.backward()
        return found

    step: Callable[[], torch.Tensor] = loss
    optimiser.step(step)
    return weights.detach().tolist()


def counted(cases: list[Case], weights: list[float]) -> dict[str, float]:
    loss = right = kept = harmed = 0.0
    for evidence, cost, true in cases:
        total = evidence @ np.array(weights) + cost
        log_probs = total - np.logaddexp.reduce(total)
        best = int(log_probs.argmax())
        loss -= log_probs[true]
        right += best == true
        kept += true == 0
        harmed += true == 0 and best != 0 and log_probs[best] >= np.log(SURE)
    return {
        "log_loss": round(loss / len(cases), 4), "right": round(right / len(cases), 4),
        "harmed": round(harmed / max(kept, 1), 4), "n": len(cases),
    }  # fmt: skip


if __name__ == "__main__":
    main()
