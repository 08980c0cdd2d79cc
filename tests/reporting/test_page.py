"""The page as a file, of searches written here; tests/browser opens pages in a browser."""

import html
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from mgc_ray import RequestError
from mgc_ray.config import SearchConfig
from mgc_ray.reporting.page import write_report
from mgc_ray.results import PREDICTIONS as PREDICTIONS_FILE
from mgc_ray.results import SearchResult, read_predictions, write_predictions
from mgc_ray.settings import validated
from tests.commands import command
from tests.reporting.made_search import record, write_search

PREDICTIONS = [("a", "Ann", 0, 0.1), ("b", "Bob", 0, 0.4), ("c", "Cy", 1, 0.8), ("d", "Di", 1, 0.3)]
GTZAN = [("blues.00000", "John Lee Hooker", 0, 0.1), ("rock.00005", "rock.00005", 1, 0.9)]
PLOTLY = '<script type="text/plain"'  # behind the page's own text
BASELINE = "Published baseline on GTZAN"


def page_of(tmp_path: Path, *searches: SearchResult) -> str:
    write_report([search.folder for search in searches], tmp_path / "page.html")
    return (tmp_path / "page.html").read_text()


def test_figures_warnings_and_commands_are_on_the_page(tmp_path: Path) -> None:
    result = write_search(tmp_path / "first", PREDICTIONS, [record(0, [0.5])], commit="abc+")
    page = page_of(tmp_path, result)
    assert '<p class="figure">75.0%</p>' in page
    assert "<h2>Test track accuracy</h2>" in page
    assert "of 4 tracks get the right genre" in page
    assert "python -m mgc_ray.search --family gru --tracks music" in page
    assert "commit abc+" in page
    assert "synthesises" not in page  # not the built-in corpus
    assert "THE SAME TRACKS" not in page


def test_a_search_without_a_test_part_says_that_its_figure_is_too_high(tmp_path: Path) -> None:
    result = write_search(tmp_path / "first", PREDICTIONS, [record(0, [0.5])])
    ensemble = result.ensemble
    assert ensemble is not None
    models = {name: replace(model, test=None) for name, model in ensemble.models.items()}
    replace(result, ensemble=replace(ensemble, models=models)).write()
    page = page_of(tmp_path, result)
    assert "Track accuracy (validation), no test figure" in page
    assert "The ensemble was selected on these tracks, so the figure is too high." in page


def test_what_is_uncertain_is_said_where_the_figure_stands(tmp_path: Path) -> None:
    result = write_search(tmp_path / "first", PREDICTIONS, [record(0, [0.5])])
    assert "decision tree" not in page_of(tmp_path, result)
    assert '<ul class="warnings">' not in page_of(tmp_path, result)
    ensemble = result.ensemble
    assert ensemble is not None
    warned = replace(ensemble, warnings=("no <artist> is known",), accuracy_without_music=0.7)
    replace(result, ensemble=warned).write()
    page = page_of(tmp_path, result)
    assert page.count("<li>no &lt;artist&gt; is known</li>") == 2  # also where the data is
    # 70 % is more than 0.9 of 75 %
    assert "<li>the genres of 70.0% of the tracks can be told without" in page
    assert "<strong>70.0%</strong> of the training and validation tracks are right by how" in page


def test_the_published_baseline_is_shown_where_the_tracks_are_of_gtzan(tmp_path: Path) -> None:
    gtzan = write_search(tmp_path / "gtzan", GTZAN, [])
    assert BASELINE in page_of(tmp_path, gtzan)
    # the built-in corpus has such ids, but artists of its own
    built_in = [(track, f"artist {i}", *rest) for i, (track, _, *rest) in enumerate(GTZAN)]
    assert BASELINE not in page_of(tmp_path, write_search(tmp_path / "built-in", built_in, []))
    assert BASELINE not in page_of(tmp_path, write_search(tmp_path / "own", PREDICTIONS, []))


def test_searches_that_cannot_be_compared_have_no_table_of_families(tmp_path: Path) -> None:
    first = write_search(tmp_path / "first", PREDICTIONS, [])
    second = write_search(tmp_path / "second", PREDICTIONS, [])
    (note,) = write_report([first.folder, second.folder], tmp_path / "page.html")
    assert note.startswith("no table of families: each search must have another --seed")
    page = (tmp_path / "page.html").read_text()
    assert "Families compared" not in page
    assert note in html.unescape(page)
    assert page.count('<p class="figure">') == 2


def test_an_unfinished_search_has_a_page_too(tmp_path: Path) -> None:
    result = write_search(
        tmp_path / "running",
        PREDICTIONS,
        [record(0, [0.5, 0.6])],
        finished=False,
        ensemble=None,
        protocol="",
        failure="the disk is full",
    )
    done = command("report", result.folder, "--out", "page.html", cwd=tmp_path)
    assert "running is unfinished: it is in no table of families" in done.stderr
    page = (tmp_path / "page.html").read_text()
    assert "This search is unfinished: the disk is full." in page
    assert "Learning curves" in page
    assert '<p class="figure">' not in page
    assert "Trials and settings" in page
    for nothing in ("Genres", "Confusion", "Mistakes", "not known", "it is in no table", ">0 "):
        assert nothing not in page.split(PLOTLY)[0]


def headings_of(page: str) -> list[str]:
    return re.findall(r"<h2[^>]*>(.*?)</h2>", page)


def test_what_a_reader_asks_first_comes_first(tmp_path: Path) -> None:
    result = write_search(tmp_path / "first", PREDICTIONS, [record(0, [0.5, 0.6])])
    page = page_of(tmp_path, result)
    assert headings_of(page) == [
        *("Test track accuracy", "Genres", "Mistakes", "Data and split"),  # without audio
        *("Trials and settings", "Families compared", "Repeat this search"),
    ]
    links = re.findall(r'<li><a href="#(\w+)">', page)
    assert len(links) == 6
    assert all(page.count(f'id="{link}"') == 1 for link in links)


def test_what_did_not_happen_is_not_mentioned(tmp_path: Path) -> None:
    right = [("a", "Ann", 0, 0.1), ("b", "Bob", 1, 0.9)]
    page = page_of(tmp_path, write_search(tmp_path / "first", right, [record(0, [0.5])]))
    text = page.split(PLOTLY)[0].split("</head>")[1]
    for nothing in (
        *("Mistakes", "most frequent mistake", "0 of them", "stopped", "time limit", "failed"),
        *("Left out", "Learning curves", "Best so far", "Settings of gru", "warnings"),
    ):
        assert nothing not in text, nothing
    assert "Too few songs for calibration: 2 of the 50 that it takes." in text


def test_the_page_of_several_searches_begins_with_their_figures(tmp_path: Path) -> None:
    first = write_search(tmp_path / "first", PREDICTIONS, [record(0, [0.5])])
    config = replace(first.config, name="second", seed=1)
    second = write_search(tmp_path / "second", PREDICTIONS, [record(0, [0.5])], config=config)
    path = second.folder / PREDICTIONS_FILE
    write_predictions(path, replace(read_predictions(path), seed=1))
    page = page_of(tmp_path, first, second)
    assert headings_of(page) == [
        *("first: test track accuracy", "second: test track accuracy"),
        *("Families compared", "first", "second"),
    ]
    assert page.count("<dt>protocol</dt>") == 2  # the facts are in the section of each
    assert "<title>first, second – mgc_ray</title>" in page


def test_many_searches_have_a_short_title(tmp_path: Path) -> None:
    searches = [write_search(tmp_path / f"search-{number}", PREDICTIONS, []) for number in range(4)]
    assert "<title>4 searches – mgc_ray</title>" in page_of(tmp_path, *searches)


def test_the_settings_on_the_page_repeat_the_search(tmp_path: Path) -> None:
    result = write_search(tmp_path / "first", PREDICTIONS, [])
    page = page_of(tmp_path, result)
    toml = page.split("as a file for --config</summary><pre>")[1].split("</pre>")[0]
    assert validated(SearchConfig, tomllib.loads(html.unescape(toml))) == result.config


def test_a_renamed_search_has_the_name_of_its_folder(tmp_path: Path) -> None:
    result = write_search(tmp_path / "first", PREDICTIONS, [])
    result.folder.rename(tmp_path / "second")
    write_report([tmp_path / "second"], tmp_path / "page.html")
    assert "<title>second – mgc_ray</title>" in (tmp_path / "page.html").read_text()


def test_what_is_no_search_is_refused(tmp_path: Path) -> None:
    done = command("report", tmp_path, "--out", "page.html", cwd=tmp_path, status=2)
    assert "is no search: search.json is missing" in done.stderr
    assert not (tmp_path / "page.html").exists()


def test_a_page_is_written_to_html_files_alone(tmp_path: Path) -> None:
    result = write_search(tmp_path / "first", PREDICTIONS, [])
    with pytest.raises(RequestError, match=r"--out must end in \.html, but it is .*search\.json"):
        write_report([result.folder], result.folder / "search.json")
    with pytest.raises(RequestError, match="must be a file in a folder that exists"):
        write_report([result.folder], tmp_path / "no" / "such" / "folder" / "page.html")
