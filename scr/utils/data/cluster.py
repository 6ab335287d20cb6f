"""Extraction on several machines: chunks of pictures as tasks for Dask, through joblib's own backend. Owns
`distributed`.

Every machine has this repository and the pictures at the same place, and runs workers that find the code:

    dask scheduler
    PYTHONPATH=scr dask worker --nthreads 1 --nworkers 8 tcp://scheduler:8786
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..config import UserError, note
from .extraction import CHUNK, count_done, open_extractor, part_path
from .face_set import LabelledImage, from_rows, save_face_set

PATIENCE_S = 20
"""For the scheduler to answer, and for the first worker to be there."""
TRIES = 2
"""Dask itself gives a task whose worker died to another one, three times; this is for what comes after."""


def extract_parts(
    images: Sequence[LabelledImage], root: Path, source: str, parts_dir: Path, scheduler: str
) -> None:
    """Write the part files that are missing in `parts_dir`, each when it is done, worked on by a cluster.

    What no worker survives is left out. Raises UserError if the cluster can't be used.
    """
    from tqdm import tqdm

    missing = [start for start in range(0, len(images), CHUNK) if not part_path(parts_dir, start).exists()]
    with tqdm(total=len(images), initial=count_done(len(images), parts_dir), unit="img", desc=source) as bar:
        for _ in range(TRIES):
            chunks = {start: [image.path for image in images[start : start + CHUNK]] for start in missing}
            for start, rows in _work_through(chunks, scheduler) if chunks else ():
                save_face_set(
                    part_path(parts_dir, start), from_rows(images[start : start + CHUNK], rows, root, source)
                )
                missing.remove(start)
                bar.update(len(rows))
    if missing:
        note(f"{len(missing)} parts that workers died of are done on this machine, picture by picture")


def extract_chunk(start: int, paths: Sequence[Path]) -> tuple[int, list[dict]]:
    """Return `start` and the row of each picture; runs on a worker."""
    with open_extractor() as work:
        return start, [work(path) for path in paths]


def _work_through(chunks: dict[int, list[Path]], scheduler: str) -> Iterator[tuple[int, list[dict]]]:
    """Yield what `extract_chunk` makes of chunks, as it is done; ends early if one killed several workers."""
    from joblib import Parallel, delayed, parallel_config

    try:
        from distributed import Client, KilledWorker
    except ModuleNotFoundError as error:
        raise UserError("--cluster needs Dask; run: pip install -r requirements-cluster.txt") from error
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # a lost connection is told once, and by us
    where = f"the cluster at {scheduler}"
    try:
        with (
            Client(scheduler, timeout=PATIENCE_S),
            parallel_config("dask", wait_for_workers_timeout=PATIENCE_S),
        ):
            run = Parallel(return_as="generator_unordered", pre_dispatch="all", batch_size=1)
            yield from run(delayed(extract_chunk)(start, paths) for start, paths in chunks.items())
    except KilledWorker:
        return
    except UserError:
        raise
    except Exception as error:  # Dask, tornado and joblib raise a dozen unrelated types
        cause = error
        while cause and not isinstance(cause, ModuleNotFoundError):
            cause = cause.__cause__
        if cause:
            raise UserError(
                f"a worker of {where} has no {cause.name}; start workers in the repository, by its packages:"
                " PYTHONPATH=scr dask worker --nthreads 1"
            ) from error
        reason = str(error) or type(error).__name__
        raise UserError(
            f"{where} can't be used ({reason}); see that scheduler and workers run, and run this again: "
            "it goes on where it was"
        ) from error
