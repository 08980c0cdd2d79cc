"""Published facts about GTZAN: artists and the fault-filtered split, by track id.

`gtzan_fault_filtered.csv` lists all 1,000 ids (`blues.00000` ... `rock.00099`).
Artists: B. L. Sturm, "An analysis of the GTZAN music genre dataset", MIRUM 2012.
Split: C. Kereliuk, B. L. Sturm, J. Larsen, "Deep learning and music adversaries", IEEE Transactions
on Multimedia 17 (2015): 443 train, 197 valid, 290 test; 70 tracks that are faulty, repeated or
mislabelled belong to none. No artist is in two of the parts.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class GtzanTrack:
    """One line of the published lists; `split` is "" for the 70 tracks that were filtered out."""

    artist: str
    split: str


@cache
def fault_filtered() -> dict[str, GtzanTrack]:
    """The published lists: track id -> artist and split, 1,000 entries."""
    text = (files("mgc_ray.data.split") / "gtzan_fault_filtered.csv").read_text(encoding="utf-8")
    return {
        row["track_id"]: GtzanTrack(row["artist"], row["fault_filtered_split"])
        for row in csv.DictReader(text.splitlines())
    }
