"""The published lists of GTZAN's artists and split."""

import csv
from collections import Counter, defaultdict
from importlib.resources import files

from mgc_ray.data.split.gtzan import fault_filtered


def test_the_published_lists_hold_1000_ids_in_three_parts() -> None:
    path = files("mgc_ray.data.split") / "gtzan_fault_filtered.csv"
    rows = list(csv.DictReader(path.read_text("utf-8").splitlines()))
    assert len(rows) == len({row["track_id"] for row in rows}) == 1000
    parts = Counter(row["fault_filtered_split"] for row in rows)
    assert parts == {"train": 443, "valid": 197, "test": 290, "": 70}
    facts = fault_filtered()
    assert list(facts) == [row["track_id"] for row in rows]
    assert [(f.artist, f.split) for f in facts.values()] == [
        (row["artist"], row["fault_filtered_split"]) for row in rows
    ]


def test_no_published_artist_is_in_two_parts() -> None:
    sides = defaultdict(set)
    for fact in fault_filtered().values():
        artist = " ".join(fact.artist.casefold().split())
        if artist and fact.split:
            sides[artist].add(fact.split)
    assert {artist for artist, parts in sides.items() if len(parts) > 1} == set()
