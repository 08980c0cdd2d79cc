"""The command-line options that say what a dataset is to be, the same for all who make one."""

from argparse import Namespace

from mgc_ray.data.request import ARRAY_RECIPES, AST_FEATURES, CHUNKS_PER_ARRAY, DatasetRequest
from mgc_ray.data.split import PROTOCOLS
from mgc_ray.terminal.command import Parser, positive_int, seed

STORAGE_HELP = (
    "a bucket (s3://bucket/prefix) or folder by which nodes exchange files that share no path"
)


def add_dataset_options(parser: Parser, *names_of_seed: str) -> None:
    """The options that say what a dataset is to be; `dataset_request` takes their values.

    `names_of_seed`: further names of --split-seed.
    """
    add = parser.add_argument
    add(
        "--tracks",
        metavar="FOLDER_OR_CSV",
        help="folder with a subfolder a genre, or CSV path,genre[,track_id,artist,split]",
    )
    add("--protocol", choices=PROTOCOLS, default="grouped", help="how tracks are split")
    add("--fold", metavar="K/N", help="under cross-validation: which of how many parts is the test")
    add(
        *names_of_seed,
        "--split-seed",
        dest="split_seed",
        type=seed,
        default=0,
        help="seed of the split",
    )
    add(
        "--features",
        nargs="+",
        metavar="GROUP",
        help="of audio: log_mel, chroma, contrast, tempogram, mfcc, or several (default: log_mel); "
        "or ast: what the transformer of --init-from expects",
    )
    add(
        "--init-from",
        metavar="DIR",
        help="weights that the family transfer starts from: a checkpoint, an ensemble, what "
        "mgc_ray.pretrain wrote, or an Audio Spectrogram Transformer of Hugging Face, a folder or "
        "OWNER/NAME",
    )
    add(
        "--chunk-seconds",
        type=float,
        metavar="S",
        help="length of a chunk of audio (default: 66,000 samples, 2.99 s)",
    )
    add(
        "--chunks-per-track",
        type=positive_int,
        metavar="N",
        help="equal pieces of an array of the most usual size; 1: all of it "
        f"(default: {CHUNKS_PER_ARRAY})",
    )
    add(
        "--array-recipe",
        choices=list(ARRAY_RECIPES),
        help="how .npy spectrograms were made, so that models of them also take audio",
    )
    add(
        "--synthetic",
        type=positive_int,
        metavar="N",
        help="add N generated tracks a genre to the training part (genres of mgc_ray.synth alone)",
    )
    add(
        "--more-tracks",
        metavar="FOLDER_OR_CSV",
        help="add these labelled tracks to the training part; those of artists in --tracks are "
        "left out",
    )
    add(
        "--without",
        metavar="CSV",
        help="leave out music by the artists in this table's column `artist`",
    )


def dataset_request(args: Namespace) -> DatasetRequest:
    """What `add_dataset_options` read; `tracks` is "" where none are named."""
    size = None
    if AST_FEATURES in (args.features or ()) and args.init_from:
        from mgc_ray.data.spectrogram import ast_features

        wanted = ast_features(args.init_from)
        size = (wanted.bands, wanted.frames)
    return DatasetRequest(
        tracks=args.tracks or "",
        ast_size=size,
        protocol=args.protocol,
        split_seed=args.split_seed,
        fold=args.fold or "",
        features=tuple(args.features or DatasetRequest.features),
        chunk_seconds=args.chunk_seconds,
        chunks_per_track=args.chunks_per_track,
        array_recipe=args.array_recipe or "",
        synthetic=args.synthetic or 0,
        more_tracks=args.more_tracks or "",
        without=args.without or "",
    )
