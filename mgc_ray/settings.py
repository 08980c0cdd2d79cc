"""How a setting is declared, described and checked; the settings themselves are in config.py.

A configuration is a frozen dataclass. Each of its fields has a type, a default, bounds and one
sentence of help:

    @configuration
    class Config:
        hidden: int = setting(128, "Units of the fully connected layer.", ge=1, le=4096)

pydantic checks the values; this module turns what it finds into a RequestError that states the
rule, the value and the nearest name.
"""

import contextlib
import dataclasses
import functools
import inspect
import types
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    ParamSpec,
    TypeVar,
    Union,
    cast,
    dataclass_transform,
    get_args,
    get_origin,
)

import pydantic
from pydantic_core import PydanticUndefined

from mgc_ray import RequestError

T = TypeVar("T")
C = TypeVar("C")
P = ParamSpec("P")
Names = Annotated[  # several names; a single one needs no brackets
    tuple[str, ...], pydantic.BeforeValidator(lambda v: (v,) if isinstance(v, str) else v)
]
Objects = Annotated[  # names, or objects that a function is given in their place
    tuple[Any, ...], pydantic.BeforeValidator(lambda v: (v,) if isinstance(v, str) else v)
]
Params = dict[str, Any]  # settings by name: flat for a trial, by section for a configuration

NONE = "none"  # no value, for an optional setting; command lines and TOML have no other way


class FileText(str):
    """Text from a file whose format has types: unlike on a command line, "3" is no number there."""


_KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
}
_LISTS = {str: "a list of names", Path: "a list of paths"}


def setting(
    default: Any,
    help: str,
    *,
    flag: bool | str = False,
    positional: bool = False,
    metavar: str = "",
    compared: bool = True,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
) -> Any:
    """Declare a field of a configuration.

    `default` may be `...` for a value that must be given. `flag`: whether it has an option of its
    own on the command line, or how that is called; every setting can be given by `--set` and
    `--config`. `metavar` stands for the value in help pages. `compared`: whether two searches that
    differ in it are different rows of a comparison; not where or how fast they ran.
    """
    extra = {
        "flag": flag,
        "positional": positional,
        "metavar": metavar,
        "compared": compared,
    }
    bounds = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    given = {name: bound for name, bound in bounds.items() if bound is not None}
    return pydantic.Field(default, description=help, json_schema_extra=extra, **given)  # type: ignore[call-overload]


@dataclass_transform(frozen_default=True, kw_only_default=True)
def configuration(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass, created by keywords, whose values are checked.

    A wrong value or an unknown name raises RequestError.
    """
    config = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)
    made = pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=config)(cls)
    create = made.__init__

    @functools.wraps(create)
    def create_checked(self: Any, **kwargs: Any) -> None:
        _refuse_other_types(made, kwargs)
        try:
            create(self, **kwargs)
        except pydantic.ValidationError as error:
            raise refusal(made, error) from None

    made.__init__ = create_checked  # type: ignore[method-assign]
    return made  # type: ignore[return-value]


@dataclass(frozen=True)
class Option:
    """A field of a configuration, as command lines and help pages show it."""

    name: str
    type: Any
    default: Any  # ... where it must be given
    help: str
    bounds: tuple[tuple[str, float], ...] = ()  # e.g. (("ge", 0), ("lt", 1))
    flag: str = ""  # e.g. --trials; "" where it has no option of its own
    positional: bool = False
    metavar: str = ""
    compared: bool = True

    @property
    def label(self) -> str:
        """How a command line calls it; "" where only --set and --config can give it."""
        return self.metavar if self.positional else self.flag

    @property
    def is_section(self) -> bool:
        return dataclasses.is_dataclass(self.type)

    @property
    def is_table(self) -> bool:
        """Whether it holds settings by name itself."""
        return self.is_section or get_origin(self.type) is dict

    @property
    def is_optional(self) -> bool:
        return _without_none(self.type) is not self.type

    @property
    def is_list(self) -> bool:
        return get_origin(_without_none(self.type)) is tuple

    @property
    def choices(self) -> tuple[str, ...]:
        """The values that there are, () where any will do."""
        plain = _without_none(self.type)
        return get_args(plain) if get_origin(plain) is Literal else ()

    @property
    def rule(self) -> str:
        """What the value must be, e.g. `a number from 0 to below 1`."""
        plain = _without_none(self.type)
        if self.choices:
            return f"one of {', '.join(str(choice) or '(nothing)' for choice in self.choices)}"
        if self.is_list:
            return _LISTS.get(get_args(plain)[0], "a list")
        if self.is_table:
            return "settings by name"
        return f"{_KINDS.get(plain, 'a value')}{_bounds_in_words(dict(self.bounds))}"


def configured_by(
    config: Callable[P, C], complete: Callable[[Params], Params] = lambda given: given
) -> Callable[[Callable[[C], T]], Callable[P, T]]:
    """Give a function of one configuration that configuration's settings as its parameters.

    `complete` may add defaults that depend on what was given.
    """

    def decorate(function: Callable[[C], T]) -> Callable[P, T]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            return function(config(*args, **complete(kwargs)))

        signature = inspect.signature(config)
        returned = inspect.signature(function).return_annotation
        call.__signature__ = signature.replace(return_annotation=returned)  # type: ignore[attr-defined]
        return call

    return decorate


def options(cls: Any) -> list[Option]:
    """The fields of a configuration, or of a plain dataclass (which has no help and no bounds)."""
    fields = getattr(cls, "__pydantic_fields__", None)
    if fields is None:
        return [_plain_option(field) for field in dataclasses.fields(cls)]
    return [_option(name, field) for name, field in fields.items()]


def _plain_option(field: "dataclasses.Field[Any]") -> Option:
    default = field.default
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    return Option(field.name, field.type, ... if default is dataclasses.MISSING else default, "")


def _option(name: str, field: Any) -> Option:
    extra = field.json_schema_extra or {}
    flag = extra.get("flag") or ""
    bounds = []
    for constraint in field.metadata:
        for bound in ("ge", "gt", "le", "lt"):
            if hasattr(constraint, bound):
                bounds.append((bound, getattr(constraint, bound)))
    default = field.get_default(call_default_factory=True, validated_data={})
    return Option(
        name=name,
        type=field.annotation,
        default=... if default is PydanticUndefined else default,
        help=field.description or "",
        bounds=tuple(bounds),
        flag=f"--{name.replace('_', '-')}" if flag is True else flag,
        positional=bool(extra.get("positional")),
        metavar=extra.get("metavar", ""),
        compared=extra.get("compared", True),
    )


def validated(cls: type[T], values: Any) -> T:
    """A configuration (or typed record) of these values; RequestError for what does not fit.

    The text `none` (see NONE) is None where a setting is optional.
    """
    _refuse_other_types(cls, values)
    try:
        return _adapter(cast(Hashable, cls)).validate_python(_with_none(cls, values))
    except pydantic.ValidationError as error:
        raise refusal(cls, error) from None


def _with_none(cls: Any, values: Any) -> Any:
    if not (hasattr(cls, "__pydantic_fields__") and isinstance(values, dict)):
        return values
    values = dict(values)
    for option in options(cls):
        value = values.get(option.name)
        if option.is_section:
            values |= {option.name: _with_none(option.type, value)} if value else {}
        elif option.is_optional and isinstance(value, str) and _is_none(value):
            values[option.name] = None
    return values


def _refuse_other_types(cls: Any, values: Any, prefix: str = "") -> None:
    """Refuse what pydantic would convert although it was not meant: `true` or "3" for a number."""
    if not (hasattr(cls, "__pydantic_fields__") and isinstance(values, dict)):
        return
    for option in options(cls):
        value, kind = values.get(option.name), _without_none(option.type)
        if option.is_section:
            _refuse_other_types(option.type, value, f"{prefix}{option.name}.")
        elif kind in (bool, int, float):
            text = isinstance(value, FileText) and not (option.is_optional and _is_none(value))
            number = isinstance(value, int | float)
            if text or (number and isinstance(value, bool) != (kind is bool)):
                label = option.label or f"{prefix}{option.name}"
                raise RequestError(wrong_value(label, option, value))


def _is_none(text: str) -> bool:
    return text.lower() == NONE


def as_json(configured: Any) -> Params:
    """A configuration or typed record as plain JSON values; `validated` takes them back."""
    content: Params = _adapter(cast(Hashable, type(configured))).dump_python(
        configured, mode="json"
    )
    return content


@functools.cache
def _adapter(cls: Hashable) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(cast(Any, cls))


def refusal(cls: Any, error: pydantic.ValidationError) -> RequestError:
    """The first of the errors as rule, value and remedy."""
    unknown = ("unexpected_keyword_argument", "extra_forbidden")
    # a misspelt name first: what is missing is missing because of it
    first = min(error.errors(include_url=False), key=lambda one: one["type"] not in unknown)
    own = first.get("ctx", {}).get("error")
    if isinstance(own, RequestError):
        return own
    path = [str(part) for part in first["loc"]]
    name, value = ".".join(path), first["input"]
    if not path:
        return RequestError(f"{cls.__name__} must be settings by name, but it is {_shown(value)}")
    if first["type"] in unknown:
        return RequestError(unknown_name("setting", name, list(setting_names(cls))))
    option = _find(cls, path)
    if option is None:
        return RequestError(f"{name}: {first['msg']}, not {_shown(value)}")
    label = option.label or name
    if option.is_list and path[-1].isdigit():  # one of its values
        label = option.label or ".".join(path[:-1])
        return RequestError(f"{label} must be {option.rule}, but it holds {_shown(value)}")
    if first["type"] in ("missing", "missing_argument"):
        what = f": {option.help[:1].lower()}{option.help[1:]}" if option.help else ""
        return RequestError(f"{label} is needed{what}")
    return RequestError(wrong_value(label, option, value))


def wrong_value(label: str, option: Option, value: Any) -> str:
    """`label must be RULE, but it is VALUE`, with the nearest of several choices."""
    near = nearest(str(value), [str(choice) for choice in option.choices])
    return f"{label} must be {option.rule}, but it is {_shown(value)}{near}"


def unknown_name(what: str, name: str, names: Sequence[str]) -> str:
    """There is no WHAT of this name; the nearest name, or all of them."""
    near = nearest(name, names)
    return f"there is no {what} {name!r}" + (near or f": choose among {', '.join(names)}")


def nearest(name: str, names: Sequence[str]) -> str:
    """` (nearest: NAME)`, or nothing where none is near."""
    # `keep` is near to tuning.keep
    short = {} if "." in name else {one.rpartition(".")[2]: one for one in names}
    near = get_close_matches(name, [*names, *short], 1, cutoff=0.6)
    return f" (nearest: {short.get(near[0], near[0])})" if near else ""


def setting_names(cls: Any, prefix: str = "") -> Iterator[str]:
    """All settings of a configuration, those of a section as `section.name`."""
    for option in options(cls):
        if option.is_section:
            yield from setting_names(option.type, f"{prefix}{option.name}.")
        else:
            yield f"{prefix}{option.name}"


def _find(cls: Any, path: Sequence[str]) -> Option | None:
    """The setting at a place, also where that is one of the values of a list."""
    option = None
    for depth, name in enumerate(path, start=1):
        by_name = {one.name: one for one in options(cls)} if dataclasses.is_dataclass(cls) else {}
        if name not in by_name:
            return option if option and option.is_list and depth == len(path) else None
        option = by_name[name]
        cls = option.type
    return option


def _shown(value: Any) -> str:
    """As it was typed: a number on a command line is a string of digits."""
    text = repr(value)
    if isinstance(value, str) and not isinstance(value, FileText):
        with contextlib.suppress(ValueError):
            float(value)
            text = value
    return text if len(text) <= 100 else f"{text[:100]}..."


def _bounds_in_words(bounds: dict[str, float]) -> str:
    low = bounds.get("ge", bounds.get("gt"))
    high = bounds.get("le", bounds.get("lt"))
    if low is not None and high is not None:
        start = f"from {low}" if "ge" in bounds else f"above {low}"
        if "ge" in bounds:
            return f" {start} to {high}" if "le" in bounds else f" {start} to below {high}"
        return f" {start}, at most {high}" if "le" in bounds else f" {start}, below {high}"
    if low is not None:
        return f", {low} or more" if "ge" in bounds else f" above {low}"
    if high is not None:
        return f", at most {high}" if "le" in bounds else f" below {high}"
    return ""


def _without_none(kind: Any) -> Any:
    """X of `X | None`."""
    if get_origin(kind) in (Union, types.UnionType):
        others = [part for part in get_args(kind) if part is not type(None)]
        return others[0] if len(others) == 1 else kind
    return kind
