"""How settings are declared, described, checked and refused."""

import inspect
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mgc_ray import RequestError
from mgc_ray.settings import (
    Names,
    Option,
    Params,
    as_json,
    configuration,
    configured_by,
    nearest,
    options,
    setting,
    setting_names,
    unknown_name,
    validated,
)


@configuration
class Engine:
    """A section of a configuration."""

    hidden: int = setting(128, "Units of the layer.", flag=True, ge=1, le=4096)
    dropout: float = setting(0.1, "Share of values that are dropped.", ge=0, lt=1)
    limit: float | None = setting(None, "Seconds at most.", flag="--time-limit", gt=0)

    def __post_init__(self) -> None:
        if self.hidden == 13:
            raise RequestError("hidden must not be 13, but it is 13: give another number")


@configuration
class Whole:
    """A configuration of every type of value."""

    name: str = setting(..., "What it is called.", flag=True)
    cell: Literal["", "gru", "lstm"] = setting("gru", "Kind of cell.", compared=False)
    smoke: bool = setting(False, "The smallest run.", flag=True)
    folders: tuple[Path, ...] = setting((), "Where to look.", positional=True, metavar="DIR")
    names: Names = setting(("a",), "One or several.")
    out: Path | None = setting(None, "Where to write.")
    engine: Engine = setting(Engine(), "")
    free: Params = setting({}, "Anything by name.")


@dataclass(frozen=True)
class Record:
    """A typed record: an ordinary dataclass, without help and bounds."""

    label: str
    engines: tuple[Engine, ...] = ()
    share: float = 0.5


def message(create: Any, *args: Any, **values: Any) -> str:
    with pytest.raises(RequestError) as error:
        create(*args, **values)
    return str(error.value)


# --- declaring ---


def test_a_setting_is_described_by_its_declaration() -> None:
    hidden, dropout, limit = options(Engine)
    assert hidden == Option(
        name="hidden",
        type=int,
        default=128,
        help="Units of the layer.",
        bounds=(("ge", 1), ("le", 4096)),
        flag="--hidden",
    )
    assert (dropout.flag, limit.flag) == ("", "--time-limit")
    assert limit.is_optional
    assert not hidden.is_optional


def test_types_are_described() -> None:
    by_name = {option.name: option for option in options(Whole)}
    assert by_name["name"].default is ...
    assert by_name["cell"].choices == ("", "gru", "lstm")
    assert (by_name["cell"].compared, by_name["smoke"].compared) == (False, True)
    assert [o.name for o in by_name.values() if o.is_list] == ["folders", "names"]
    assert [o.name for o in by_name.values() if o.is_section] == ["engine"]
    assert [o.name for o in by_name.values() if o.is_table] == ["engine", "free"]
    assert by_name["folders"].positional
    assert by_name["folders"].metavar == "DIR"


@pytest.mark.parametrize(
    ("bounds", "rule"),
    [
        ({}, "a whole number"),
        ({"ge": 1}, "a whole number, 1 or more"),
        ({"gt": 0}, "a whole number above 0"),
        ({"le": 9}, "a whole number, at most 9"),
        ({"lt": 9}, "a whole number below 9"),
        ({"ge": 0, "le": 2**31 - 1}, "a whole number from 0 to 2147483647"),
        ({"ge": 0, "lt": 10}, "a whole number from 0 to below 10"),
        ({"gt": 0, "le": 10}, "a whole number above 0, at most 10"),
        ({"gt": 0, "lt": 10}, "a whole number above 0, below 10"),
    ],
)
def test_bounds_are_put_into_words(bounds: dict[str, float], rule: str) -> None:
    assert Option("n", int, 1, "", tuple(bounds.items())).rule == rule


def test_rules_of_other_types() -> None:
    rules = {option.name: option.rule for option in options(Whole)}
    assert rules == {
        "name": "text",
        "cell": "one of (nothing), gru, lstm",
        "smoke": "true or false",
        "folders": "a list of paths",
        "names": "a list of names",
        "out": "a path",
        "engine": "settings by name",
        "free": "settings by name",
    }


def test_the_fields_of_an_ordinary_dataclass_are_options_without_help() -> None:
    label, engines, share = options(Record)
    assert (label.default, label.help, label.type) == (..., "", str)
    assert (engines.default, share.default) == ((), 0.5)


def test_settings_of_sections_are_named_with_their_section() -> None:
    assert list(setting_names(Whole)) == [
        *("name", "cell", "smoke", "folders", "names", "out"),
        *("engine.hidden", "engine.dropout", "engine.limit", "free"),
    ]


# --- creating ---


def test_values_get_the_right_type() -> None:
    whole = Whole(
        name="a",
        smoke="true",
        folders=["x", "y"],
        names="one",
        out="z",
        engine={"hidden": "64", "dropout": "0.5"},
    )
    assert whole.smoke is True
    assert whole.folders == (Path("x"), Path("y"))
    assert whole.names == ("one",)
    assert whole.out == Path("z")
    assert whole.engine == Engine(hidden=64, dropout=0.5)


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Engine().hidden = 3  # type: ignore[misc]


def test_a_configuration_is_created_by_keywords_alone() -> None:
    with pytest.raises(TypeError, match="takes 1 positional argument"):
        Engine(64)  # type: ignore[misc]


def test_a_default_is_not_shared() -> None:
    one, other = Whole(name="a"), Whole(name="b")
    one.free["x"] = 1
    assert other.free == {}


def test_a_changed_copy_is_checked_too() -> None:
    assert replace(Engine(), hidden=64) == Engine(hidden=64)
    assert message(replace, Engine(), hidden=0).startswith("--hidden must be a whole number")


# --- refusing ---


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"hidden": 0}, "--hidden must be a whole number from 1 to 4096, but it is 0"),
        ({"hidden": 2.5}, "--hidden must be a whole number from 1 to 4096, but it is 2.5"),
        ({"hidden": "x"}, "--hidden must be a whole number from 1 to 4096, but it is 'x'"),
        ({"hidden": "4097"}, "--hidden must be a whole number from 1 to 4096, but it is 4097"),
        ({"hidden": True}, "--hidden must be a whole number from 1 to 4096, but it is True"),
        ({"dropout": False}, "dropout must be a number from 0 to below 1, but it is False"),
        ({"hidden": None}, "--hidden must be a whole number from 1 to 4096, but it is None"),
        ({"dropout": 1}, "dropout must be a number from 0 to below 1, but it is 1"),
        ({"dropout": 1.0000001}, "dropout must be a number from 0 to below 1, but it is 1.0000001"),
        ({"dropout": "nan"}, "dropout must be a number from 0 to below 1, but it is nan"),
        ({"dropout": float("inf")}, "dropout must be a number from 0 to below 1, but it is inf"),
        ({"limit": 0}, "--time-limit must be a number above 0, but it is 0"),
        ({"hiden": 1}, "there is no setting 'hiden' (nearest: hidden)"),
        ({"x": 1}, "there is no setting 'x': choose among hidden, dropout, limit"),
        ({"hiden": 1, "dropout": 2}, "there is no setting 'hiden' (nearest: hidden)"),
        ({"hidden": 13}, "hidden must not be 13, but it is 13: give another number"),
    ],
)
def test_a_wrong_value_is_refused_with_rule_and_value(values: Params, text: str) -> None:
    assert message(Engine, **values) == text
    assert message(validated, Engine, values) == text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({}, "--name is needed: what it is called."),
        ({"nam": "a"}, "there is no setting 'nam' (nearest: name)"),
        ({"name": 3}, "--name must be text, but it is 3"),
        ({"name": "a", "smoke": "maybe"}, "--smoke must be true or false, but it is 'maybe'"),
        (
            {"name": "a", "cell": "grru"},
            "cell must be one of (nothing), gru, lstm, but it is 'grru' (nearest: gru)",
        ),
        ({"name": "a", "folders": 3}, "DIR must be a list of paths, but it is 3"),
        ({"name": "a", "folders": ["x", 3]}, "DIR must be a list of paths, but it holds 3"),
        ({"name": "a", "names": [None]}, "names must be a list of names, but it holds None"),
        ({"name": "a", "engine": 3}, "engine must be settings by name, but it is 3"),
        ({"name": "a", "free": 3}, "free must be settings by name, but it is 3"),
        (
            {"name": "a", "engine": {"dropout": 2}},
            "engine.dropout must be a number from 0 to below 1, but it is 2",
        ),
        (
            {"name": "a", "engine": {"hidden": 0}},
            "--hidden must be a whole number from 1 to 4096, but it is 0",
        ),
        (
            {"name": "a", "engine": {"hiden": 0}},
            "there is no setting 'engine.hiden' (nearest: engine.hidden)",
        ),
        ({"name": "a", "dropout": 0.2}, "there is no setting 'dropout' (nearest: engine.dropout)"),
        (
            {"name": "a", "engine": {"hidden": 13}},
            "hidden must not be 13, but it is 13: give another number",
        ),
        (
            {"name": "x" * 200, "smoke": "y" * 200},
            f"--smoke must be true or false, but it is '{'y' * 99}...",
        ),
    ],
)
def test_a_wrong_value_in_a_section_is_refused_with_its_place(values: Params, text: str) -> None:
    assert message(Whole, **values) == text
    assert message(validated, Whole, values) == text


@pytest.mark.parametrize("values", [None, 3, "text", [1], [("name", "a")]])
def test_something_else_than_settings_is_refused(values: object) -> None:
    assert message(validated, Whole, values) == (
        f"Whole must be settings by name, but it is {values!r}"
    )


def test_a_wrong_value_of_a_record_is_refused_with_its_place() -> None:
    engine = {"hidden": 3}
    assert validated(Record, {"label": "a", "engines": [engine]}) == Record(
        "a", (Engine(hidden=3),)
    )
    assert message(validated, Record, {}) == "label is needed"
    assert message(validated, Record, {"label": 3}) == "label must be text, but it is 3"
    assert message(validated, Record, {"label": "a", "engines": [3]}) == (
        "engines must be a list, but it holds 3"
    )
    deep = message(validated, Record, {"label": "a", "engines": [{"hidden": 0}]})
    assert deep == "engines.0.hidden: Input should be greater than or equal to 1, not 0"


# --- no value ---


def test_the_text_none_is_no_value_where_a_setting_is_optional() -> None:
    whole = validated(Whole, {"name": "none", "out": "none", "engine": {"limit": "None"}})
    assert (whole.name, whole.out, whole.engine.limit) == ("none", None, None)
    assert message(validated, Engine, {"hidden": "none"}).endswith("but it is 'none'")


def test_given_values_are_left_as_they_are() -> None:
    values = {"name": "a", "engine": {"limit": "none"}}
    validated(Whole, values)
    assert values == {"name": "a", "engine": {"limit": "none"}}


# --- JSON ---


def test_json_values_give_the_same_configuration() -> None:
    whole = Whole(name="a", folders=("x",), out="z", engine=Engine(limit=3.5), free={"k": [1, "b"]})
    content = as_json(whole)
    assert content == {
        "name": "a",
        "cell": "gru",
        "smoke": False,
        "folders": ["x"],
        "names": ["a"],
        "out": "z",
        "engine": {"hidden": 128, "dropout": 0.1, "limit": 3.5},
        "free": {"k": [1, "b"]},
    }
    assert validated(Whole, content) == whole


@given(
    hidden=st.integers(1, 4096).filter(lambda hidden: hidden != 13),
    dropout=st.floats(0, 1, exclude_max=True),
    limit=st.none() | st.floats(1e-300, 1e300),
)
def test_any_allowed_values_come_back_from_json(
    hidden: int, dropout: float, limit: float | None
) -> None:
    engine = Engine(hidden=hidden, dropout=dropout, limit=limit)
    assert validated(Engine, as_json(engine)) == engine


@given(
    st.dictionaries(
        st.sampled_from([*setting_names(Whole), "engine", "other"]),
        st.sampled_from(["", "none", "gru", "true", "7", "\n"])
        | st.none()
        | st.integers()
        | st.floats()
        | st.lists(st.integers(), max_size=2),
    )
)
def test_anything_wrong_is_one_request_error(values: Params) -> None:
    try:
        whole = validated(Whole, values)
    except RequestError as error:
        assert str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert isinstance(whole, Whole)


# --- nearest names ---


def test_the_nearest_name_is_named_and_else_all_of_them() -> None:
    assert nearest("grru", ["cnn", "gru", "lstm"]) == " (nearest: gru)"
    assert nearest("grru", ["cnn"]) == ""
    assert unknown_name("family", "grru", ["cnn", "gru"]) == (
        "there is no family 'grru' (nearest: gru)"
    )
    assert unknown_name("family", "x", ["cnn", "gru"]) == (
        "there is no family 'x': choose among cnn, gru"
    )


def test_the_nearest_name_may_be_in_a_section() -> None:
    names = ["seed", "tuning.trials", "tuning.keep"]
    assert nearest("keep", names) == " (nearest: tuning.keep)"
    assert nearest("trails", names) == " (nearest: tuning.trials)"
    assert nearest("tuning.trails", names) == " (nearest: tuning.trials)"


# --- functions of one configuration ---


def test_a_function_has_the_settings_as_its_parameters() -> None:
    @configured_by(Engine)
    def run(config: Engine) -> int:
        return config.hidden

    assert run(hidden=64) == 64
    assert run() == 128
    assert message(run, hidden=0).startswith("--hidden must be")
    signature = inspect.signature(run)
    assert list(signature.parameters) == ["hidden", "dropout", "limit"]
    assert signature.parameters["hidden"].default == 128
    assert signature.parameters["hidden"].kind is inspect.Parameter.KEYWORD_ONLY
    assert signature.return_annotation is int


def test_defaults_may_depend_on_what_is_given() -> None:
    def complete(given: Params) -> Params:
        return {"hidden": 7} | given

    @configured_by(Engine, complete)
    def run(config: Engine) -> int:
        return config.hidden

    assert run() == 7
    assert run(hidden=64) == 64
