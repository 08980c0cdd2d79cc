"""Figures of a model on any labelled tracks; without Ray.

mgc-ray evaluate --model results/gru-001/ensemble --tracks CSV --split test
"""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mgc_ray.config import EvaluateConfig
from mgc_ray.pipeline.checks import register_files
from mgc_ray.settings import as_json, configured_by
from mgc_ray.terminal.command import console, count_of, print_json, print_warnings, run
from mgc_ray.terminal.options import parse

if TYPE_CHECKING:
    from mgc_ray.pipeline.evaluate import Evaluation


@configured_by(EvaluateConfig)
def evaluate(config: EvaluateConfig) -> "Evaluation":
    """Metrics of a model on a folder or CSV, or on the rows of one part.

    Intervals draw whole artists, where the table has artists. Raises RequestError for a table
    without usable rows or with genres that the model does not know.
    """
    from mgc_ray.pipeline.evaluate import evaluate_model

    register_files(config.family, config.feature_files)
    return evaluate_model(config)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line, evaluate, print the figures."""
    parsed = parse(
        EvaluateConfig,
        argv,
        "evaluate",
        "Accuracy with interval, macro-F1 and confusion matrix on labelled tracks.",
        json_help="Print all figures on standard output.",
    )
    register_files(parsed.config.family, parsed.config.feature_files)
    # imports SciPy, for features, which takes a while: a wrong option should not
    from mgc_ray.pipeline.evaluate import confusion_table, evaluate_model

    evaluation = evaluate_model(parsed.config)
    metrics = evaluation.metrics
    console.print(str(metrics))
    console.print(confusion_table(metrics.confusion_matrix, metrics.genres))
    for reason, count in Counter(item.reason for item in evaluation.skipped).most_common(5):
        console.print(f"skipped {count}: {reason}")
    if evaluation.short:
        console.print(
            f"{count_of(evaluation.short, 'track')} shorter than half of the model's chunks, which "
            "it was not trained on"
        )
    if evaluation.known:
        print_warnings(
            [
                f"{evaluation.known} of the {metrics.tracks} tracks were among those that the "
                "model was trained or selected on, so the figure is too high: leave them out"
            ]
        )
    if evaluation.model_leaky:
        console.print(
            "the model was chosen under a leaky protocol (random-chunks); where these tracks were "
            "among its own, the figure says nothing",
            style="yellow",
        )
    if parsed.as_json:
        print_json(as_json(evaluation))
    return 0


if __name__ == "__main__":
    run("mgc-ray evaluate", main)
