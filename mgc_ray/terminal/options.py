"""A command line made from a configuration (see settings.py), with `--set` and `--config`.

Values come from, the later ones winning: the defaults, the file of `--config`, the options,
`--set`. pydantic checks them all together.
"""

import argparse
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

import tomli_w

from mgc_ray import RequestError
from mgc_ray.config import TrainConfig
from mgc_ray.data.files import atomic_write
from mgc_ray.data.names import as_text, is_utf8
from mgc_ray.settings import (
    NONE,
    FileText,
    Option,
    Params,
    as_json,
    nearest,
    options,
    setting_names,
    unknown_name,
    validated,
    wrong_value,
)

T = TypeVar("T")
_WIDTH = 100


@dataclass(frozen=True)
class Parsed(Generic[T]):
    """What a command line says. `as_json`: whether it asks for one line of JSON."""

    config: T
    as_json: bool


def parse(
    config: type[T],
    argv: Sequence[str] | None,
    command: str,
    description: str,
    json_help: str = "",
    complete: Callable[[Params], Params] = lambda given: given,
) -> Parsed[T]:
    """Read a command line; RequestError, in one line, for what is wrong with it.

    `json_help`: what `--json` prints, where the command has it. `complete` may add defaults that
    depend on what was given. `--help` prints a page and exits.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser, places = _parser(config, command, description, json_help)
    args, unknown = parser.parse_known_args(argv)
    if args.help:
        family = getattr(args, "family", None) or []
        print(help_page(config, parser, [family] if isinstance(family, str) else family))
        sys.exit(0)
    if unknown:
        parser.refuse_unknown(unknown, argv)
    given: Params = _read_toml(config, Path(args.config)) if args.config else {}
    for destination, (path, option) in places.items():
        value = getattr(args, destination)
        if not option.positional:
            _check_utf8(option.flag, value)
        if value is not None and not (option.positional and value == []):
            _put(given, path, value)
    for text in args.set:
        _put(given, *_assignment(config, text))
    return Parsed(validated(config, complete(given)), bool(json_help) and args.json)


def _check_utf8(flag: str, value: Any) -> None:
    """Refuse what no file of a search could record, nor Ray start with."""
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, str) and not is_utf8(one):
            raise RequestError(f"{flag} must be UTF-8 text, but it is {as_text(one)}: rename it")


def write_config(path: Path, configured: Any) -> None:
    """Write a configuration as a file for `--config`."""
    with atomic_write(path) as temporary:
        temporary.write_text(as_toml(configured), "utf-8")


def as_toml(configured: Any) -> str:
    """The content of a file for `--config`."""
    return tomli_w.dumps(_none_as_text(as_json(configured)))


def _none_as_text(content: Any) -> Any:
    """TOML has no None, and what is left out would get its default."""
    if isinstance(content, dict):
        return {key: _none_as_text(value) for key, value in content.items()}
    return NONE if content is None else content


class _Parser(argparse.ArgumentParser):
    """Refuses what is wrong in one line, as all other requests are, instead of with its usage."""

    def error(self, message: str) -> NoReturn:
        raise RequestError(f"{message} (see --help)")

    def refuse_unknown(self, unknown: Sequence[str], argv: Sequence[str]) -> NoReturn:
        name = unknown[0].partition("=")[0]
        if name.startswith("-") and Path(name).exists():
            self.error(f"no option {name}; write a file whose name begins with - as ./{name}")
        if not name.startswith("-"):
            self.error(f"unexpected argument {name!r}")
        known = [option for option in self._option_string_actions if option.startswith("--")]
        self.error(f"no option {name}{nearest(name, known)}")


def _parser(
    config: Any, command: str, description: str, json_help: str
) -> tuple[_Parser, dict[str, tuple[list[str], Option]]]:
    """The parser, and for each of its destinations the setting that it is for."""
    parser = _Parser(
        prog=f"mgc-ray {command}",
        description=description,
        add_help=False,
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, width=_WIDTH),
    )
    places = {}
    has_files = any(option.positional for _, option in _walk(config))
    for path, option in _walk(config):
        if option.positional:
            count = "*" if option.is_list else "?"
            parser.add_argument(
                option.name, nargs=count, metavar=option.metavar, help=_help(option, False)
            )
            places[option.name] = (path, option)
        elif option.flag:
            destination = option.flag.removeprefix("--").replace("-", "_")
            places[destination] = (path, option)
            kind: dict[str, Any] = {"dest": destination, "default": None, "help": _help(option)}
            if option.type is bool:
                kind |= {"action": "store_const", "const": True}
            else:
                kind["metavar"] = option.metavar or destination.upper()
                if option.choices:
                    kind["metavar"] = "{" + ",".join(map(str, option.choices)) + "}"
                if option.is_list:  # beside files it takes one at a time, else it would take them
                    kind |= {"action": "append"} if has_files else {"nargs": "+"}
            parser.add_argument(option.flag, **kind)
    add = parser.add_argument
    if any(not (option.positional or option.flag) for _, option in _walk(config)):
        text = "Any other setting, see below; can be repeated."
        add("--set", action="append", default=[], metavar="NAME=VALUE", help=text)
    else:
        parser.set_defaults(set=[])
    add("--config", metavar="FILE.toml", help="Settings from a file; options take precedence.")
    if json_help:
        add("--json", action="store_true", help=json_help)
    add("-h", "--help", action="store_true", help="Show this page.")
    return parser, places


def _walk(config: Any, path: Sequence[str] = ()) -> Iterator[tuple[list[str], Option]]:
    """All settings with their places, sections after what is outside of them."""
    sections = []
    for option in options(config):
        place = [*path, option.name]
        if option.is_section:
            sections.append((place, option.type))
        else:
            yield place, option
    for place, section in sections:
        yield from _walk(section, place)


def _help(option: Option, with_default: bool = True) -> str:
    text = option.help.replace("%", "%%").removesuffix(".")
    if option.bounds:
        text += f"; {option.rule}"
    if option.default is ...:
        return f"{text} (required)."
    if not with_default or option.default in (None, ..., "", False, (), 0) or option.is_list:
        return f"{text}."
    return f"{text} (default: {_shown(option.default)})."


def _put(values: Params, path: Sequence[str], value: Any) -> None:
    """Set a nested value, in place."""
    *sections, name = path
    for section in sections:
        values = values.setdefault(section, {})
    values[name] = value


def _assignment(config: Any, text: str) -> tuple[list[str], Any]:
    """The place and value of a `--set`; RequestError where there is no such setting."""
    name, separator, value = text.partition("=")
    if not separator:
        raise RequestError(f"--set takes NAME=VALUE, but it is {text!r}")
    path = name.split(".")
    by_place = {".".join(place): option for place, option in _walk(config)}
    has_train = by_place.pop("train", None) is not None
    if has_train and name not in by_place and _is_for_training(path, list(by_place)):
        return ["train", path[-1]], value  # checked with all settings of the family
    if name not in by_place:
        raise RequestError(f"--set {text}: {unknown_name('setting', name, list(by_place))}")
    if by_place[name].is_list:
        return path, [part for part in value.split(",") if part]
    return path, value


def _is_for_training(path: Sequence[str], others: Sequence[str]) -> bool:
    """Whether it may be a setting of a family or of training, rather than of another section."""
    if len(path) == 2:
        return path[0] == "train"
    elsewhere = {one.rpartition(".")[2] for one in others} - {o.name for o in options(TrainConfig)}
    return len(path) == 1 and path[0] not in {"train", *elsewhere}


def _read_toml(config: Any, path: Path) -> Params:
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(f"--config {path} cannot be read as TOML: {error}") from None
    for option in options(config):
        value = content.get(option.name, {})
        if option.is_table and not isinstance(value, dict):
            raise RequestError(f"--config {path}: {wrong_value(option.name, option, value)}")
    marked: Params = _marked(content)
    return marked


def _marked(content: Any) -> Any:
    """With its texts as FileText."""
    if isinstance(content, dict):
        return {key: _marked(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_marked(value) for value in content]
    return FileText(content) if isinstance(content, str) else content


# ---- help ----


def help_page(config: Any, parser: argparse.ArgumentParser, families: Sequence[str]) -> str:
    """The options, then all other settings with their values, bounds and meaning."""
    rest = [(place, option) for place, option in _walk(config) if not _has_option(option)]
    lines = [parser.format_help().rstrip()]
    rest = [(place, option) for place, option in rest if place != ["train"]]
    if rest:
        lines += ["", "settings for --set and --config:"]
        lines += [line for place, option in rest for line in _setting_lines(place, option)]
    if "train" in setting_names(config):
        if any(option.name == "family" and option.is_list for option in options(config)):
            lines += _default_family_lines()
        lines += _family_lines(families)
    return "\n".join(lines)


def _has_option(option: Option) -> bool:
    return bool(option.flag) or option.positional


def _default_family_lines() -> Iterator[str]:
    """Which families a search takes where none is asked for."""
    from mgc_ray.models import default_families

    yield ""
    yield "families that are searched without --family, where there is what they read:"
    for family, reasons in default_families().items():
        yield from (f"  {family}: {why}" for why in reasons.values())
    yield "  All others only where --family gives them. Networks that start from random weights are"
    yield "  for large collections: with some hundred tracks they are far less accurate."


def _family_lines(families: Sequence[str]) -> Iterator[str]:
    from mgc_ray.models import family_names, family_options, train_fields

    if not families:
        yield ""
        yield "settings of a family and of training: --family NAME --help lists them, with bounds"
        return
    for family in family_names(families):
        shared = train_fields()
        found = family_options(family)
        yield ""
        yield f"settings of the family {family} for --set and --config (there in [train]):"
        for option in (option for option in found if option.name not in shared):
            yield from _setting_lines([option.name], option)
        yield ""
        yield f"settings of its training, with the defaults of {family}:"
        for option in (option for option in found if option.name in shared):
            yield from _setting_lines([option.name], option)


def _setting_lines(place: Sequence[str], option: Option) -> Iterator[str]:
    unset = option.default in ("", (), None, ...)
    default = "" if unset else f"; default {_shown(option.default)}"
    or_none = " or none" if option.is_optional else ""
    yield f"  {'.'.join(place)}: {option.rule}{or_none}{default}"
    if option.help:
        yield f"      {option.help}"


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
