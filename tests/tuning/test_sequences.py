"""A search in any sequence of kills, resumes, losses and damages; more: benchmarks/sequences.py."""

from hypothesis import HealthCheck, settings

from tests.tuning.sequences import Search

TestSearch = Search.TestCase
TestSearch.settings = settings(
    max_examples=15,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
