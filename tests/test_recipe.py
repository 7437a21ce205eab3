"""Recipes: what is wrong is named in one line, with its place and the way out."""

import datetime
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from diffutron.corpus import CorpusSettings
from diffutron.errors import RecipeError
from diffutron.recipe import Settings, check, load_recipe, parse_yaml
from diffutron.training.recipe import TrainRecipe

ROOT = Path(__file__).parents[1]


class Inner(Settings):
    rate: float = Field(default=0.5, gt=0, le=1)
    """A share."""
    name: str = "x"
    """A name."""


class Outer(Settings):
    size: int
    """A size."""
    inner: Inner = Inner()
    """A section."""
    items: list[Inner] = Field(default_factory=list)
    """A list of sections."""


TRAIN = """
model: mini
data: {corpus: somewhere}
objective: {kind: mlm}
train_tokens: 10
"""
CORPUS = """
sources:
  - {path: a.jsonl}
  - {path: b.jsonl}
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "r.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def fault_of(write):
    """The message for a recipe that cannot be used, without its place; it is one line and begins with the place."""

    def fault_of(text, schema=Outer, overrides=()):
        path = write(text)
        with pytest.raises(RecipeError) as caught:
            load_recipe(path, schema, overrides)
        message = str(caught.value)
        assert len(message.splitlines()) == 1
        assert message.startswith(str(path))
        return message.removeprefix(str(path)).removeprefix(": ")

    return fault_of


@pytest.mark.parametrize(
    ("written", "number"),
    [("1e-4", 1e-4), ("1E-4", 1e-4), ("1e4", 1e4), ("+2e3", 2e3), ("-2e-3", -2e-3), ("1.5e3", 1.5e3), (".5e1", 5.0),
     ("1.e2", 100.0), ("1_000e2", 1e5), ("0.1", 0.1)],
)  # fmt: skip
def test_a_number_in_scientific_notation_is_a_float(written, number):
    value = parse_yaml(f"a: {written}", place="here")["a"]
    assert isinstance(value, float)
    assert value == number


@pytest.mark.parametrize("written", ["e4", "1e", "1e-", "v1e4", "1e4x", "'1e-4'", "20231101.tr", "."])
def test_what_only_resembles_a_number_stays_text(written):
    assert parse_yaml(f"a: {written}", place="here")["a"] == written.strip("'")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_python_prints_reads_back_as_itself(number):
    assert parse_yaml(repr(number), place="here") == number


def test_digits_may_be_grouped():
    assert parse_yaml("a: 3_010_000", place="here") == {"a": 3010000}


@pytest.mark.parametrize("written", ["12:00:00", "1:30", "-1:30", "190:20:30.15"])
def test_a_time_of_day_is_no_number(written):
    assert parse_yaml(f"a: {written}", place="here") == {"a": written}


def test_settings_may_be_merged_and_set_again(write):
    text = "size: 1\nitems:\n  - &first {rate: 0.1, name: a}\n  - &second {<<: *first, name: b}\n  - {<<: *second}\n"
    assert [(item.rate, item.name) for item in load_recipe(write(text), Outer).items] == [
        (0.1, "a"), (0.1, "b"), (0.1, "b"),
    ]  # fmt: skip


def test_a_deep_section_may_be_merged_into_a_shallow_one():
    text = "a: {b: {c: &deep {<<: &first {x: 1, y: 1}, y: 2}}}\nd: {<<: *deep, x: 3}\n"
    assert parse_yaml(text, place="here") == {"a": {"b": {"c": {"x": 1, "y": 2}}}, "d": {"x": 3, "y": 2}}


def test_only_the_safe_loader_reads():
    with pytest.raises(RecipeError, match=r"^here:1: not a valid recipe"):
        parse_yaml("!!python/object/apply:os.getcwd []", place="here")


def test_what_is_left_out_has_its_default(write):
    settings = load_recipe(write("size: 3\ninner: {rate: 1e-1}\n"), Outer)
    assert settings == Outer(size=3, inner=Inner(rate=0.1))


def test_an_unknown_key_is_refused_with_the_nearest_known_one(fault_of):
    assert fault_of("size: 1\ninnr: {}\n") == "the recipe has no setting 'innr'; did you mean 'inner'?"


def test_an_unknown_key_with_nothing_near_gets_no_suggestion(fault_of):
    assert fault_of("size: 1\nzzzzzzzz: 1\n") == "the recipe has no setting 'zzzzzzzz'"


def test_an_unknown_key_of_a_section_gets_a_suggestion_from_that_section(fault_of):
    assert fault_of("size: 1\ninner: {rte: 1}\n") == "inner has no setting 'rte'; did you mean 'rate'?"
    assert fault_of("size: 1\ninner: {sizes: 1}\n") == "inner has no setting 'sizes'"  # size is the outer one's


def test_an_unknown_key_inside_a_list_names_the_entry(fault_of):
    text = CORPUS.replace("b.jsonl", "b.jsonl, sampel: 0.5")
    assert fault_of(text, CorpusSettings) == "sources.1 has no setting 'sampel'; did you mean 'sample'?"
    text = TRAIN.replace("{corpus: somewhere}", "{build: {sources: [{path: a, lisence: x}]}}")
    assert fault_of(text, TrainRecipe) == "data.build.sources.0 has no setting 'lisence'; did you mean 'license'?"


def test_a_misspelt_required_key_is_called_misspelt_rather_than_missing(fault_of):
    assert fault_of("siez: 1\n") == "the recipe has no setting 'siez'; did you mean 'size'?"


@pytest.mark.parametrize(
    ("objective", "fault"),
    [
        ("{kind: mlm, mask_rte: 0.2}", "objective has no setting 'mask_rte'; did you mean 'mask_rate'?"),
        ("{kind: mlm-range, lwo: 0.1}", "objective has no setting 'lwo'; did you mean 'low'?"),
        ("{kind: diffusion, shedule: linear}", "objective has no setting 'shedule'; did you mean 'schedule'?"),
        # a setting of another kind of objective is no suggestion
        ("{kind: mlm, low: 0.1}", "objective has no setting 'low'"),
        ("{kind: mlm, mask_rate: 1.5}", "objective.mask_rate: input should be less than or equal to 1 (got 1.5)"),
        ("{kind: mlm-range, start: [0.1, x]}", "objective.start.1: input should be a valid number"),
        ("{kind: mlm-range, low: 0.9, high: 0.2}", "objective: the window (0.9, 0.2) is upside down"),
        ("{mask_rate: 0.2}", "the setting 'objective.kind' is missing"),
        ("{kind: mlmm}", "objective: input tag 'mlmm' found using 'kind' does not match any of the expected tags"),
        ("mlm", "objective: input should be a valid dictionary"),
    ],
)  # fmt: skip
def test_a_fault_of_the_objective_is_named_as_the_user_wrote_it(fault_of, objective, fault):
    message = fault_of(TRAIN.replace("{kind: mlm}", objective), TrainRecipe)
    assert message.startswith(fault)
    assert ("did you mean" in message) == ("did you mean" in fault)


def test_a_missing_key_is_named(fault_of):
    assert fault_of("inner: {}\n") == "the setting 'size' is missing"
    assert fault_of("") == "the setting 'size' is missing"
    assert fault_of("# nothing but a comment\n") == "the setting 'size' is missing"


def test_settings_that_exclude_each_other_are_explained_without_a_stray_colon(fault_of):
    assert fault_of(TRAIN + "epochs: 1\n", TrainRecipe) == "a recipe needs either train_tokens or epochs"
    assert fault_of("sources: [{license: x}]", CorpusSettings) == "sources.0: a source needs either a path or a hub id"


def test_a_repeated_key_is_an_error_that_names_its_line(fault_of):
    assert fault_of("size: 1\ninner: {}\nsize: 2\n") == ":3: not a valid recipe: the key 'size' stands twice"
    assert fault_of("size: 1\ninner:\n  rate: 1\n  rate: 1\n") == ":4: not a valid recipe: the key 'rate' stands twice"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("size: many\n", "size: input should be a valid integer, unable to parse string as an integer (got 'many')"),
        ("size: 1.5\n", "size: input should be a valid integer, got a number with a fractional part (got 1.5)"),
        ("size: [1]\n", "size: input should be a valid integer (got [1])"),
        ("size: 1\ninner: {rate: 0}\n", "inner.rate: input should be greater than 0 (got 0)"),
        ("size: 1\ninner: {name: 5}\n", "inner.name: input should be a valid string (got 5); put it in quotes"),
        ("size: 1\nitems: [{}, {rate: 7}]\n", "items.1.rate: input should be less than or equal to 1 (got 7)"),
        ("size: 1\ninner: 5\n", "inner: input should be a valid dictionary or instance of Inner (got 5)"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(fault_of, text, fault):
    assert fault_of(text) == fault


def test_a_key_that_is_no_name_is_refused(fault_of):
    assert "keys should be strings" in fault_of("size: 1\n5: 2\n")
    assert fault_of("? [a]\n: 1\n") == ":1: not a valid recipe: a key is a name, not a list"
    assert fault_of("size: 1\ninner: {{x}}\n") == ":2: not a valid recipe: a key is a name, not a dict"


@pytest.mark.parametrize(
    ("text", "kind"), [("- 1\n", "list"), ("[]\n", "list"), ("5\n", "int"), ("false\n", "bool"), ("hello\n", "str")]
)
def test_a_recipe_that_is_no_mapping_is_refused(fault_of, text, kind):
    assert fault_of(text) == f"a recipe is a mapping of settings, not a {kind}"


@pytest.mark.parametrize(
    ("text", "line"),
    [("size: 1\ninner: {rate: 1\n", 3), ("size: 1\n\trate: 1\n", 2), ("size: 1\nname: 'x\n", 3),
     ("a: b: c\n", 1), ("size: 1\n---\nsize: 2\n", 2)],
)  # fmt: skip
def test_broken_yaml_names_the_line(fault_of, text, line):
    assert fault_of(text).startswith(f":{line}: not a valid recipe: ")


@pytest.mark.parametrize("text", ["size: \x00\n", "size: 2024-13-45\n", "size: " + "[" * 3000, "size: *nobody\n", "%"])
def test_what_the_yaml_library_chokes_on_is_one_line_too(fault_of, text):
    assert "not a valid recipe" in fault_of(text)


def test_a_date_is_refused_where_a_name_is_wanted(fault_of):
    shown = repr(datetime.date(2024, 1, 2))
    wanted = f"inner.name: input should be a valid string (got {shown}); put it in quotes"
    assert fault_of("size: 1\ninner: {name: 2024-01-02}\n") == wanted


def test_a_commit_that_looks_like_a_number_is_wanted_in_quotes_and_a_list_is_not(fault_of):
    text = CORPUS.replace("b.jsonl", "b.jsonl, revision: 7654e21")
    wanted = "sources.1.revision: input should be a valid string (got 7.654e+24); put it in quotes"
    assert fault_of(text, CorpusSettings) == wanted
    assert fault_of("size: 1\ninner: {name: [a]}\n") == "inner.name: input should be a valid string (got ['a'])"


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\xef\xbb\xbfsize: 3\r\ninner:\r\n  rate: 1e-1\r\n")
    assert load_recipe(path, Outer) == Outer(size=3, inner=Inner(rate=0.1))


def test_a_missing_file_says_where_to_find_recipes(tmp_path):
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "none.yaml", Outer)
    assert str(caught.value) == (
        f"recipe {tmp_path / 'none.yaml'} does not exist; `diffutron recipe ls` lists the ones that ship"
    )


def test_a_folder_and_a_file_that_is_no_text_cannot_be_read(tmp_path):
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path, tmp_path / "bytes.yaml"):
        with pytest.raises(RecipeError, match="cannot be read") as caught:
            load_recipe(path, Outer)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_path_that_there_cannot_be_is_one_line_too():
    with pytest.raises(RecipeError, match="cannot be read: embedded null"):
        load_recipe("a\0.yaml", Outer)


def test_set_changes_a_setting_at_any_depth(write):
    path = write("size: 1\ninner: {name: kept}\n")
    settings = load_recipe(path, Outer, ["size=7", "inner.rate=1e-1"])
    assert settings == Outer(size=7, inner=Inner(rate=0.1, name="kept"))


def test_set_makes_the_section_it_needs(write):
    assert load_recipe(write("size: 1\n"), Outer, ["inner.rate=0.25"]).inner.rate == 0.25


def test_set_fills_a_section_that_is_written_as_null(write):
    recipe = load_recipe(write(TRAIN + "lora: null\n"), TrainRecipe, ["lora.r=8"])
    assert recipe.lora is not None
    assert recipe.lora.r == 8


def test_the_last_set_wins_and_its_value_may_hold_an_equals_sign(write):
    path = write("size: 1\n")
    assert load_recipe(path, Outer, ["size=2", "size=3"]).size == 3
    assert load_recipe(path, Outer, ["inner.name=a=b"]).inner.name == "a=b"


def test_set_takes_yaml_values(write):
    assert load_recipe(write("size: 1\n"), Outer, ["items=[{rate: 0.1}, {name: z}]"]).items == [
        Inner(rate=0.1),
        Inner(name="z"),
    ]


@pytest.mark.parametrize("override", ["size", "", "=3"])
def test_set_without_key_or_value_is_refused(write, override):
    with pytest.raises(RecipeError) as caught:
        load_recipe(write("size: 1\n"), Outer, [override])
    assert str(caught.value) == f"--set {override!r} is not of the form section.key=value"


def test_set_into_what_is_no_section_is_refused(write):
    with pytest.raises(RecipeError, match=r"^--set 'size.deep=1': 'size' is not a section$"):
        load_recipe(write("size: 1\n"), Outer, ["size.deep=1"])


def test_set_of_broken_yaml_names_the_option(write):
    with pytest.raises(RecipeError, match=r"^--set size:1: not a valid recipe: ") as caught:
        load_recipe(write("size: 1\n"), Outer, ["size=[1"])
    assert "\n" not in str(caught.value)


def test_set_is_checked_like_the_recipe_itself(fault_of):
    assert fault_of("size: 1\n", overrides=["inner.rte=1"]) == "inner has no setting 'rte'; did you mean 'rate'?"
    assert fault_of("size: 1\n", overrides=["inner.rate=2"]).startswith("inner.rate: input should be less than")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5) | st.floats(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
            st.sampled_from(["size", "inner", "items", "rate", "name", "x"]), inner, max_size=4
        ),
    ).filter(lambda value: isinstance(value, dict))
)  # fmt: skip
def test_any_mapping_is_either_settings_or_a_single_line(values):
    try:
        message = "here: " + str(check(values, Outer, place="here"))
    except RecipeError as error:
        message = str(error)
    assert message.startswith("here: ")
    assert len(message.splitlines()) == 1


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Outer(size=1).size = 2


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_that_ships_is_valid_and_its_resolved_form_says_the_same(path, write):
    values = parse_yaml(path.read_text(encoding="utf-8"), place=str(path))
    schema = CorpusSettings if "sources" in values else TrainRecipe
    settings = load_recipe(path, schema)
    resolved = yaml.safe_dump(settings.model_dump(mode="json"), allow_unicode=True, sort_keys=False)
    assert load_recipe(write(resolved), schema) == settings


def test_recipes_ship():
    assert list((ROOT / "recipes").glob("*.yaml"))
