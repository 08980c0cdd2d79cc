"""Nothing is lost where a search's driver is killed (SIGKILL), whatever it is doing.

Here once in each of its stages; at 20 random moments: tests/benchmarks/killed.py.
"""

from pathlib import Path

import pytest

from tests.killing import KilledSearch

OPTIONS = ["--smoke", "--family", "gru", "statistics", "--refit-folds", "2"]


@pytest.mark.slow  # a search that is killed once and resumed: test_own_family.py, test_stopping.py
@pytest.mark.timeout(600)
def test_a_search_that_is_killed_in_each_stage_loses_nothing(tmp_path: Path) -> None:
    def preprocessing(search: Path) -> bool:
        return any(search.parent.glob("datasets/*/chunks/*.parquet"))

    def two_have_ended(search: Path) -> bool:
        return len(list(search.glob("trials/*/trial.json"))) >= 2

    def another_has_its_state(search: Path) -> bool:
        ended = list(search.glob("trials/*/trial.json"))
        return len(ended) > 2 and any(search.glob("trials/*/state.safetensors"))

    def refitting(search: Path) -> bool:
        return any(search.glob("refit/*/fold-1/held.npz"))

    def writing_the_ensemble(search: Path) -> bool:
        return any(search.glob("*ensemble*"))

    killed = KilledSearch(tmp_path, [*OPTIONS, "--trials", "6", "--max-epochs", "12"])
    stages = [
        preprocessing,
        two_have_ended,
        another_has_its_state,
        refitting,
        writing_the_ensemble,
    ]
    killed.run(stages)
    killed.check(trials=6)
    assert len(killed.kills) == len(stages)
    assert killed.running[2] >= 1
