"""Genres for recordings without one, from what their artists are known for.

    python tests/benchmarks/label_by_artist.py TABLE.csv results/gtzan/artist_genres.csv \\
        --exclude-artists mgc_ray/data/split/gtzan_fault_filtered.csv \\
        --labels classical rock reggae metal hip-hop --most 3 --out more.csv

TABLE.csv has the columns path, track_id, artist and may have label. A recording gets the genre that
its artist has in the second file, else its label where that is one of --labels; all others are left
out, as are those beyond the first --most of an artist and those of artists in the column `artist`
of --exclude-artists. The result is a track table for --more-tracks of mgc_ray.search.
"""

import argparse
import csv
import os
from collections import Counter
from pathlib import Path

from mgc_ray.data.artists import Artists


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("genres", type=Path)
    parser.add_argument("--exclude-artists", type=Path, help="a table of artists that are left out")
    parser.add_argument("--labels", nargs="*", default=[])
    parser.add_argument("--most", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    with args.genres.open(encoding="utf-8") as file:
        genre_of = {row["artist"]: row["genre"] for row in csv.DictReader(file)}
    known, unwanted = Artists(genre_of), Artists([])
    if args.exclude_artists:
        with args.exclude_artists.open(encoding="utf-8") as file:
            unwanted = Artists(row["artist"] for row in csv.DictReader(file))
    taken: Counter[str] = Counter()
    genres: Counter[str] = Counter()
    with args.table.open(encoding="utf-8") as file, args.out.open("w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["path", "genre", "track_id", "artist"])
        for row in csv.DictReader(file):
            label = row.get("label", "").lower()
            genre = genre_of.get(known.same(row["artist"]))
            if genre is None and label in args.labels:
                genre = label.replace("-", "")
            if unwanted.same(row["artist"]):
                continue
            artist = row["artist"] or row["path"]
            taken[artist] += genre is not None
            if genre is None or taken[artist] > args.most:
                continue
            path = os.path.abspath(args.table.parent / row["path"])
            writer.writerow([path, genre, row["path"], row["artist"]])
            genres[genre] += 1
    counts = ", ".join(f"{genre} {count}" for genre, count in sorted(genres.items()))
    print(f"{genres.total()} recordings in {args.out}: {counts}")


if __name__ == "__main__":
    main()
