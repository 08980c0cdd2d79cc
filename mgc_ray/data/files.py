"""Files that are never seen half-written: written under another name, then renamed."""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mgc_ray import RequestError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the place of `path` if the block succeeds."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON, indented, keys in the order given."""
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")


def read_json(path: Path, what: str, remedy: str) -> dict[str, Any]:
    """Read a JSON object or raise RequestError: `path` is no `what`, and the remedy."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise RequestError(
            f"{path.parent} is no {what}: {path.name} is missing; {remedy}"
        ) from None
    except (OSError, ValueError) as error:
        raise RequestError(f"{path.parent} is no {what}: {path.name}: {error}; {remedy}") from None
    if not isinstance(content, dict):
        raise RequestError(f"{path.parent} is no {what}: {path.name} holds no object; {remedy}")
    return content


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV with a header line."""
    with written_whole(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
