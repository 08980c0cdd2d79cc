"""The rules of the genres: patterns, instruments and chords that exist."""

from mgc_ray.corpus.composer import GENRES, STEPS, _chord
from mgc_ray.corpus.genre_rules import GENRE_RULES
from mgc_ray.corpus.instruments import DRUMS, INSTRUMENTS


def test_every_pattern_is_one_bar_of_known_sounds() -> None:
    for genre, rules in GENRE_RULES.items():
        assert set(rules.neighbours) <= set(GENRES) - {genre}
        for groove in rules.grooves:
            for drum, grid in vars(groove).items():
                assert drum in DRUMS
                assert len(grid) in (0, STEPS), (genre, drum)
        for part in (rules.bass, *rules.chords, *rules.leads):
            assert set(part.instruments) <= set(INSTRUMENTS), genre
            assert {len(pattern) for pattern in part.patterns} == {STEPS}, (genre, part)
        for progression in rules.progressions:
            for chord in progression.split():
                _chord(chord)
