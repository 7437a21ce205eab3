"""What is published loads with transformers alone, cards say what was measured, and nothing harmful gets through."""

import contextlib
import gzip
import io
import json
import pickle
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import httpx
import onnxruntime
import pytest
import torch
import yaml
from huggingface_hub.errors import HfHubHTTPError
from safetensors.torch import load_file

from diffutron.errors import DiffutronError, InputError
from diffutron.generation import fill
from diffutron.model import add_lora, load_model, save_adapter
from diffutron.model.lora import LoraSettings
from diffutron.publish.folder import make_folder
from diffutron.publish.onnx import export_onnx
from diffutron.publish.scan import scan
from diffutron.publish.upload import upload
from diffutron.testing import TINY_TEXTS, tiny_denoiser, tiny_folder
from diffutron.tokens.codec import TextCodec


@pytest.fixture
def model(tmp_path):
    return tiny_folder(tmp_path / "tiny")


def report_of(model, **changes):
    score = {"mask_rate": 0.15, "perplexity": 123.456, "low": 100.0, "high": 150.0, "top1": 0.1234, "num_texts": 7,
             "seed": 0, "fingerprint": "0123456789abcdef"}  # fmt: skip
    bound = {"bits_per_character": 2.345, "standard_error": 0.012}
    loaded = load_model(str(model))
    [best] = fill(loaded.denoiser, TextCodec(loaded.tokenizer), "ev [MASK]", top_k=1)
    fills = [{"text": "ev [MASK]", "ways": [{"tokens": list(best.tokens), "score": best.score}]}]
    sets = [{"name": "haber", "score": score, "bound": bound}]
    return {"num_parameters": loaded.denoiser.num_parameters, "sets": sets, "fills": fills, **changes}


@pytest.fixture
def publish(cli, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return partial(cli, "publish")


def test_the_card_has_the_tasks_of_the_report_beside_chance(model, tmp_path, publish):
    task = {"task": "xcopa_tr", "metric": "acc", "value": 0.5512, "low": 0.452, "high": 0.644, "chance": 0.5,
            "majority": None, "num_documents": 100, "seed": 0, "fingerprint": "ad68a3764728737e"}  # fmt: skip
    others = [{"kind": "probes"}, {"kind": "tasks", "tasks": [task]}]
    (tmp_path / "report.json").write_text(json.dumps(report_of(model, others=others)))
    publish("tiny", "--out", "out", "--license", "apache-2.0", "--report", "report.json")
    row = "| xcopa_tr, acc | 55.1 % | 45.2 – 64.4 % | 50.0 % | ? % | 100 | 0 | ad68a3764728737e |"
    for card in ("README.md", "README.tr.md"):
        assert row in (tmp_path / "out" / card).read_text(encoding="utf-8")
    head = yaml.safe_load((tmp_path / "out" / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert head["model-index"][0]["results"][-1]["metrics"] == [{"type": "acc", "name": "acc", "value": 0.5512}]


def test_the_folder_is_plain_and_loads_with_transformers_alone(model, tmp_path, publish):
    (tmp_path / "report.json").write_text(json.dumps(report_of(model)))
    publish("tiny", "--out", "out", "--license", "apache-2.0", "--report", "report.json", "--dtype", "float32")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"README.md", "README.tr.md", "config.json", "diffusion_config.json", "model.safetensors",
                     "tokenizer.json", "tokenizer_config.json"}  # fmt: skip
    code = (
        "import sys; from transformers import AutoModelForMaskedLM, AutoTokenizer, pipeline\n"
        "model, tokenizer = (kind.from_pretrained('out') for kind in (AutoModelForMaskedLM, AutoTokenizer))\n"
        "print(pipeline('fill-mask', model=model, tokenizer=tokenizer)('ev ' + tokenizer.mask_token)[0]['sequence'])\n"
        "assert 'diffutron' not in sys.modules"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    one, other = (load_model(str(each)).denoiser.state_dict() for each in (model, tmp_path / "out"))
    assert all(one[name].equal(other[name]) for name in one)


def test_the_cards_quote_the_report_and_nothing_else(model, tmp_path):
    make_folder(str(model), tmp_path / "out", license="mit", report=report_of(model), title="Deneme")
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    head = yaml.safe_load(card.split("---\n")[1])
    assert (head["license"], head["language"]) == ("mit", "tr")
    [result] = head["model-index"][0]["results"]
    assert [metric["value"] for metric in result["metrics"]] == [123.46, 0.1234, 2.345]
    for text in (card, (tmp_path / "out" / "README.tr.md").read_text("utf-8")):
        assert "| haber | 123.46 | 100.00 – 150.00 | 12.3 % | 2.345 ± 0.012 | 7 | 0 | 0123456789abcdef |" in text
        assert "{" not in text.replace("{repository}", "x{") or "{" not in text
    with pytest.raises(DiffutronError, match="of another model"):
        make_folder(str(model), tmp_path / "no", license="mit", report=report_of(model, num_parameters=7))
    with pytest.raises(DiffutronError, match="none that"):
        make_folder(str(model), tmp_path / "no", license="mit", report={"sets": []})
    assert not (tmp_path / "no").exists()


def run_folder(tmp_path, model):
    """A run with an adapter, as training leaves it, this machine's paths and all."""
    denoiser = tiny_denoiser()
    peft_model = add_lora(denoiser, LoraSettings(r=4, alpha=4), seed=0, base_name=str(model.resolve()))
    with torch.no_grad():
        for name, param in peft_model.named_parameters():
            if "lora_B" in name:
                param.add_(0.1)
    run = tmp_path / "runs" / "deneme"
    (run / "corpus").mkdir(parents=True)
    save_adapter(run / "adapter", peft_model, {"format": 1, "learned_end": True})
    (run / "run.json").write_text(json.dumps({
        "command": ["/mnt/ayse/secret/diffutron"], "trainable_parameters": 5, "parameters": 10,
        "machine": {"precision": "float32"}, "run_fingerprint": "x",
    }))  # fmt: skip
    (run / "recipe.yaml").write_text(
        f"model: {model.resolve()}\ndata: {{build: {{sources: [{{path: /mnt/ayse/texts/a}}]}}}}\n"
    )
    report = {"by_source": {"haber": 7}, "licenses": {"CC0": 7}, "fingerprint": "abc"}
    (run / "corpus" / "report.json").write_text(json.dumps(report))
    with gzip.open(run / "corpus" / "train.jsonl.gz", "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in TINY_TEXTS)
    return run


def test_a_run_is_published_merged_or_as_an_adapter_without_this_machines_paths(model, tmp_path):
    run = run_folder(tmp_path, model)
    assert make_folder(str(run), tmp_path / "whole", license="mit", report={}) == []
    merged = load_model(str(tmp_path / "whole")).denoiser.state_dict()
    wanted = load_model(str(run / "adapter")).denoiser.state_dict()
    assert all(torch.allclose(merged[name], wanted[name], atol=1e-2) for name in wanted)
    assert not all(
        merged[name].equal(value.half().float()) for name, value in load_model(str(model)).denoiser.state_dict().items()
    )
    card = (tmp_path / "whole" / "README.md").read_text("utf-8")
    assert "| haber | 7 |" in card
    assert "a LoRA adapter merged into it" in card
    for path in (tmp_path / "whole").iterdir():
        assert b"/mnt" not in path.read_bytes(), path
    make_folder(str(run), tmp_path / "adapter", license="mit", report={}, adapter=True, base_id="org/tiny")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "org/tiny"
    card = (tmp_path / "adapter" / "README.md").read_text("utf-8")
    assert "Weights: float32" in card
    assert 'from_pretrained("org/tiny")' in card
    assert "base_model: org/tiny" in card
    with pytest.raises(InputError, match=r"is a folder, tiny, that others lack; --base names it"):
        make_folder(str(run), tmp_path / "no", license="mit", report={}, adapter=True)
    with pytest.raises(InputError, match="is no adapter"):
        make_folder(str(model), tmp_path / "no", license="mit", report={}, adapter=True)


def test_numbers_of_other_weights_of_the_same_size_are_refused(model, tmp_path):
    run = run_folder(tmp_path, model)
    make_folder(str(run), tmp_path / "one", license="mit", report=report_of(run))
    with pytest.raises(DiffutronError, match="the report is of other weights: for 'ev "):
        make_folder(str(run), tmp_path / "other", license="mit", report=report_of(model))
    with pytest.raises(DiffutronError, match="none that"):
        make_folder(str(run), tmp_path / "other", license="mit", report={**report_of(run), "fills": [{"text": "ev"}]})


def test_sources_without_a_name_do_not_tell_their_folder(model, tmp_path):
    run = run_folder(tmp_path, model)
    report = {"by_source": {"/mnt/ayse/texts/haber.txt": 7}, "licenses": {}, "fingerprint": "abc"}
    (run / "corpus" / "report.json").write_text(json.dumps(report))
    assert make_folder(str(run), tmp_path / "out", license="mit", report={}) == []
    assert "| haber.txt | 7 |" in (tmp_path / "out" / "README.md").read_text("utf-8")


def test_texts_of_the_training_set_in_a_card_are_found(model, tmp_path):
    run = run_folder(tmp_path, model)
    long = " ".join(TINY_TEXTS)
    with gzip.open(run / "corpus" / "train.jsonl.gz", "wt", encoding="utf-8") as stream:
        stream.write(json.dumps({"text": long}, ensure_ascii=False))
    [finding] = make_folder(str(run), tmp_path / "out", license="mit", report={}, limits=f"Örnek: {long[:120]}")[:1]
    assert "holds text of the training set" in finding.what
    assert finding.file in ("README.md", "README.tr.md")


@pytest.mark.parametrize("family", ["bert", "modernbert", "xlm-roberta"])
def test_onnx_is_the_same_network_for_any_batch_and_length(tmp_path, family):
    denoiser = tiny_denoiser(family)
    before = denoiser.hidden_states(torch.tensor([[5, 6, 7]]))
    assert export_onnx(denoiser, tmp_path / "model.onnx") < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    ids = torch.randint(4, 50, (5, 33))
    mask = torch.ones_like(ids)
    mask[2, 11:] = 0
    found = session.run(None, {"input_ids": ids.numpy(), "attention_mask": mask.numpy()})[0]
    with torch.inference_mode():
        expected = denoiser.model(input_ids=ids, attention_mask=mask).logits.numpy()
    assert abs(found - expected)[mask.bool().numpy()].max() < 1e-4
    assert denoiser.hidden_states(torch.tensor([[5, 6, 7]])).equal(before)  # and works on as it did


# Folders that mean harm


class Bomb:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (Path.touch, (Path(self.canary),))


def bomb(canary):
    return pickle.dumps(Bomb(str(canary)))


def zipped(canary):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", bomb(canary))
    return stream.getvalue()


def write(name, content):
    def harm(folder, canary):
        data = content(canary) if callable(content) else content
        (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode("utf-8"))

    return harm


def config(**changes):
    def harm(folder, canary):
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return harm


CODE = "import pathlib; pathlib.Path({!r}).touch()"
HARM = {
    **{f"pickle in {name}": write(name, bomb) for name in (
        "pytorch_model.bin", "model.pt", "weights.pth", "optimizer.pkl", "x.pickle", "model.ckpt", "x.joblib",
        "adapter_model.bin", "training_args.bin", "rng_state.pth", "x.npy", "notes.txt", "data.json", "tokens.md",
    )},
    **{f"archive in {name}": write(name, zipped) for name in (
        "pytorch_model.bin", "x.npz", "notes.md", "x.zip", "a.json",
    )},
    **{f"code in {name}": write(name, lambda canary: CODE.format(str(canary))) for name in (
        "modeling_x.py", "configuration_x.py", "setup.py", "x.sh", "x.so", "x.js", "x.pyc",
    )},
    "auto_map": config(auto_map={"AutoModelForMaskedLM": "modeling_x.M"}),
    "auto_map elsewhere": config(auto_map={"AutoConfig": "evil/repo--configuration_x.C"}),
    "auto_map deep": config(sub={"auto_map": {"AutoModel": "x.M"}}),
    "trust_remote_code": config(**{"trust_remote_code": True}),
    "custom pipelines": config(custom_pipelines={"x": {"impl": "x.P"}}),
    "auto_map of the tokenizer": write("tokenizer_config.json", '{"auto_map": {"AutoTokenizer": ["x.T", null]}}'),
    "weights that are a pickle": write("model.safetensors", bomb),
    "weights that are nothing": write("model.safetensors", b"\0" * 64),
    "a link out": lambda folder, canary: (folder / "notes.txt").symlink_to("/etc/passwd"),
    "a token": write("notes.md", "hf_" + "a" * 30), "a key": write("notes.md", "AKIA" + "A" * 16),
    "a private key": write("k.txt", "-----BEGIN RSA PRIVATE KEY-----\n"),
    "a password": write("x.yaml", "password: hunter2hunter2"),
    "a client's secret": write("x.json", '{"client_secret": "hunter2hunter2"}'),
    "a quoted password": write("x.json", '{"a": {"db_password" : "hunter2hunter2"}}'),
    "a key of an API": write("x.yaml", "OPENAI_API_KEY=hunter2hunter2"),
    "a credential": write("x.md", "https://a:bcd@example.org"),
    "broken json": write("extra.json", "{"),
}  # fmt: skip


def test_there_are_enough_of_them():
    assert len(HARM) >= 40


@pytest.mark.parametrize("kind", HARM)
def test_a_folder_that_means_harm_is_refused_and_its_code_never_runs(model, tmp_path, kind):
    canary = tmp_path / "canary"
    HARM[kind](model, canary)
    assert scan(model), kind
    with pytest.raises(DiffutronError) as error:
        make_folder(str(model), tmp_path / "out", license="mit", report={})
    assert "must not be published" in str(error.value)
    assert "\n" not in str(error.value)
    assert not canary.exists()
    assert not (tmp_path / "out").exists()
    # Loading it may work, where it is only clutter, but runs nothing either.
    with contextlib.suppress(DiffutronError):
        load_model(str(model))
    assert not canary.exists()


@pytest.mark.parametrize(
    "path", ["/mnt/ayse/models/x", "/lustre/ayse/x", "/content/drive/x", "/Volumes/a/b", r"C:\\Users\\ayse", "/tmp/x/y"]
)
def test_a_path_of_a_machine_is_found(model, path):
    (model / "notes.md").write_text(f"from {path}, yesterday")
    [finding] = scan(model)
    assert "a path of a machine" in str(finding)
    assert scan(model, paths=False) == []


def test_an_innocent_folder_is_not_refused(model):
    told = "See https://example.org/home/ayse/x. `mask_token: [MASK]`, secret: none, and/or 3 km/h."
    (model / "README.md").write_text(told)
    assert scan(model) == []


# The command


def test_a_dry_run_prints_the_tree_and_the_card_and_leaves_nothing(model, tmp_path, publish):
    before = sorted(tmp_path.rglob("*"))
    out, _ = publish("tiny", "--license", "mit", "--without-numbers", "--dry-run")
    assert "model.safetensors" in out
    assert "Nothing was measured." in out
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("options", "told"), [
    (["--out", "o", "--without-numbers"], "needs --license"),
    (["--out", "o", "--license", "mit"], "needs measured numbers"),
    (["--license", "mit", "--without-numbers"], "--out names"),
    (["--out", "o", "--license", "mit", "--report", "nowhere"], "cannot be read"),
    (["--out", "tiny", "--license", "mit", "--without-numbers"], "is not empty"),
    (["--out", "o", "--license", "mit", "--without-numbers", "--dtype", "int8"], "--dtype is"),
    (["--out", "o", "--license", "mit", "--without-numbers", "--to", "a/b", "--offline"], "--offline forbids"),
    (["--out", "o", "--license", "mit", "--without-numbers", "--to", "a b/c"], "'a b/c' is no hub id"),
    (["--out", "o", "--license", "mit", "--without-numbers", "--to", "mine"], "'mine' does not say whose it is"),
])  # fmt: skip
def test_what_is_missing_is_told_in_one_line(model, publish, options, told):
    _, err = publish("tiny", *options, code=1)
    assert told in err
    assert len(err.splitlines()) == 1


class Hub:
    """Enough of the hub's client: keeps what it is sent, and may break off."""

    def __init__(self, fails_after=None):
        self.files, self.fails_after, self.made, self.is_private = {}, fails_after, [], True

    def create_repo(self, repository, *, private, exist_ok):
        self.made.append((repository, private, exist_ok))

    def repo_info(self, repository):
        return SimpleNamespace(private=self.is_private)

    def get_paths_info(self, repository, paths):
        import hashlib

        return [SimpleNamespace(
            path=name, size=len(data), lfs=SimpleNamespace(sha256=hashlib.sha256(data).hexdigest())
            if name.endswith(".safetensors") else None,
            blob_id=hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(),
        ) for name, data in self.files.items() if name in paths]  # fmt: skip

    def upload_file(self, *, path_or_fileobj, path_in_repo, repo_id, commit_message):
        if self.fails_after is not None and len(self.files) >= self.fails_after:
            self.fails_after = None
            raise HfHubHTTPError(
                "503 Service Unavailable", response=SimpleNamespace(headers={}, status_code=503, request=None)
            )
        self.files[path_in_repo] = Path(path_or_fileobj).read_bytes()


def test_an_upload_that_broke_off_goes_on_where_it_stopped(model, tmp_path):
    hub = Hub(fails_after=3)
    names = sorted(path.name for path in model.iterdir())
    with pytest.raises(InputError, match=r"could not be written.*goes on where it stopped"):
        upload(model, "org/tiny", api=hub)
    assert sorted(hub.files) == names[:3]
    assert upload(model, "org/tiny", private=True, api=hub) == names[3:]
    assert upload(model, "org/tiny", api=hub) == []
    assert hub.made[1] == ("org/tiny", True, True)
    (model / "config.json").write_text((model / "config.json").read_text() + "\n")
    assert upload(model, "org/tiny", api=hub) == ["config.json"]
    assert load_file(model / "model.safetensors")


def test_the_same_command_goes_on_after_an_upload_that_broke_off(model, tmp_path, publish, monkeypatch):
    hub = Hub(fails_after=3)
    monkeypatch.setattr("diffutron.publish.upload.HfApi", lambda: hub)
    command = ("tiny", "--out", "out", "--license", "mit", "--without-numbers", "--to", "org/tiny")
    _, err = publish(*command, code=1)
    assert "goes on where it stopped" in err
    publish(*command)
    assert sorted(hub.files) == sorted(path.name for path in (tmp_path / "out").iterdir())
    (tmp_path / "out" / "README.md").write_text("another")
    _, err = publish(*command, code=1)
    assert "out exists and holds something else" in err
    assert (tmp_path / "out" / "README.md").read_text() == "another"


def test_what_is_refused_leaves_no_folder_behind(model, tmp_path, publish):
    (tmp_path / "before").mkdir()
    before = sorted(path.name for path in tmp_path.iterdir())
    _, err = publish("tiny", "--out", "before/out", "--license", "mit", "--without-numbers",
                     "--limits", "password: hunter2hunter2", code=1)  # fmt: skip
    assert "out must not be published: README.md: holds a password" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert not list((tmp_path / "before").iterdir())


def test_nothing_private_is_sent_to_a_public_repository(model):
    hub = Hub()
    hub.is_private = False
    with pytest.raises(InputError, match="exists and is public"):
        upload(model, "org/tiny", private=True, api=hub)
    assert not hub.files


@pytest.mark.parametrize("error", [ValueError("Repo id must be in the form 'org/name'"), httpx.ConnectError("no")])
def test_what_the_hubs_client_raises_is_one_line(model, error):
    class Refusing(Hub):
        def create_repo(self, *_, **__):
            raise error

    with pytest.raises(InputError, match="could not be written"):
        upload(model, "org/tiny", api=Refusing())


def test_weights_whose_header_has_a_pickles_first_byte_are_weights(tmp_path):
    header = json.dumps({"__metadata__": {"format": "pt"}}).encode()
    header += b" " * (128 - len(header))  # a length of 0x80
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert not [each for each in scan(tmp_path) if each.file == "model.safetensors"]
    (tmp_path / "model.safetensors").write_bytes(b"\x80\x04\x95" + b"\0" * 200)
    assert [each for each in scan(tmp_path) if each.file == "model.safetensors"]


def test_card_names_data_sets_of_the_hub_and_no_folder_of_ours(model):
    from diffutron.publish.card import Card
    from diffutron.publish.source import Source

    sources = [{"path": "data/tr", "hub": None}, {"path": None, "hub": "wikimedia/wikipedia"}]
    for recipe, named in ((sources, ["wikimedia/wikipedia"]), (sources[:1], None)):
        corpus = {"by_source": {"data/tr": 3}, "recipe": {"sources": recipe}}
        card = Card("x", "mit", "a/x", Source(model, {}, corpus, None, None, None), {}, 10, "float32")
        assert card.metadata().get("datasets") == named


def test_settings_are_published_without_the_folders_that_paths_lie_in():
    from diffutron.publish.folder import without_paths

    given = {
        "model": "/veri/Ali Veli/gizli proje/derlem", "hub": "org/name@v1", "url": "https://example.org/a/b",
        "sources": [{"path": "/veri/My Drive/x.jsonl"}, {"path": "C:\\Users\\ali\\b.txt"}, {"path": "data/tr"}],
        "rate": 0.5,
    }  # fmt: skip
    assert without_paths(given) == {
        "model": "derlem", "hub": "org/name@v1", "url": "https://example.org/a/b",
        "sources": [{"path": "x.jsonl"}, {"path": "b.txt"}, {"path": "data/tr"}], "rate": 0.5,
    }  # fmt: skip


def test_folder_that_one_is_in_gives_its_name_and_is_never_replaced(model, publish, monkeypatch):
    monkeypatch.chdir(model)
    _, err = publish(".", "--out", ".", "--license", "mit", "--without-numbers", code=1)
    assert "is the folder that you are in" in err
    publish(".", "--out", "../out", "--license", "mit", "--without-numbers")
    assert "# tiny\n" in (model.parent / "out" / "README.md").read_text(encoding="utf-8")
    assert not [path for path in model.iterdir() if path.name.startswith(".")]
