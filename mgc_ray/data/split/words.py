"""The words for the parts of a split, as the cells of tables and the names of folders have them."""

from collections.abc import Iterable

PARTS = ("train", "valid", "test")

_PART_OF = {
    **dict.fromkeys(("train", "training", "trainset"), "train"),
    **dict.fromkeys(("valid", "validation", "validate", "val", "dev", "development"), "valid"),
    **dict.fromkeys(("test", "testing", "testset"), "test"),
}
_VALID_OR_TEST = ("eval", "evaluation")
WORDS = frozenset((*_PART_OF, *_VALID_OR_TEST))


def part_words(words: Iterable[str]) -> dict[str, str]:
    """The part that each of the words of one split means; words that mean none are left out.

    `eval` means valid, test where another word means valid, and none where others mean both.
    """
    words = set(words)
    found = {word: _PART_OF[word] for word in words if word in _PART_OF}
    free = [part for part in ("valid", "test") if part not in found.values()]
    if free:
        found |= {word: free[0] for word in words if word in _VALID_OR_TEST}
    return found
