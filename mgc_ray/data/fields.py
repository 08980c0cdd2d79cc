"""Settings that were read from a file, held against the dataclass that they are for."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from mgc_ray import RequestError

_TYPES: dict[Any, tuple[type, ...]] = {
    int: (int,),
    float: (int, float),
    str: (str,),
    bool: (bool,),
    dict[str, Any]: (dict,),
}


def check_fields(
    holder: Any, values: Any, what: str, allowed: Callable[[str, int], bool] = lambda *_: True
) -> None:
    """Raise RequestError for a value of another type than `holder`'s field, or no finite number.

    `allowed(name, number)`: whether a whole number is one that the field can have.
    """
    if not isinstance(values, dict):
        raise RequestError(f"{what} must be settings by name, but they are {values!r:.100}")
    for field in dataclasses.fields(holder):
        if field.name not in values or field.type not in _TYPES:
            continue
        value, types = values[field.name], _TYPES[field.type]
        fits = isinstance(value, types) and (isinstance(value, bool) == (bool in types))
        if fits and isinstance(value, float):
            fits = math.isfinite(value)
        if fits and isinstance(value, int) and not isinstance(value, bool):
            fits = allowed(field.name, value)
        if not fits:
            raise RequestError(
                f"{what}: {field.name} must be {getattr(field.type, '__name__', field.type)} of a "
                f"usual size, but it is {value!r:.100}"
            )
