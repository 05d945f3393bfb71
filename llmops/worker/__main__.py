"""`python -m llmops.worker COMMAND`: the program of all Jobs."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from llmops.worker.report import Result, WorkerError, finish
from llmops.worker.volume import as_result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (see `report`)."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], Result] = options.run
    try:
        result = run(options)
    except WorkerError as error:
        result = Result(options.command, error.kind, error.message, error.remedy, error.problems)
    except OSError as error:
        result = as_result(options.command, error)
    except Exception as error:  # noqa: BLE001 - the last frame: every error has to reach the termination log
        traceback.print_exc()
        result = Result(options.command, "crash", f"bug in {options.command}: {type(error).__name__}: {error}")
    return finish(result, options.termination_log)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llmops.worker",
        description="Runs inside the Jobs.",
        epilog="Exit codes: 0 done, 1 bug, 2 usage, 3 the release is bad, 4 temporary, 5 cannot until someone acts.",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], Result], text: str) -> argparse.ArgumentParser:
        subparser = commands.add_parser(name, help=text, description=text)
        subparser.set_defaults(run=run)
        subparser.add_argument("--root", type=Path, required=True, help="where the volume is mounted")
        subparser.add_argument("--termination-log", type=Path, help="file for the result, at most 4,096 bytes")
        return subparser

    download = command("download", _download, "Fetch a release's weights to the volume.")
    download.add_argument("--staging", required=True, help="folder to write to, relative to the root")

    checksum = command("checksum", _checksum, "Compare the weights on the volume with their pins.")
    checksum.add_argument("--shards", type=int, default=1, help="number of processes that share the files")
    checksum.add_argument("--index", type=int, help="shard of this process; default: JOB_COMPLETION_INDEX, or 0")
    checksum.add_argument("--run", dest="run_id", default="", help="name of the Job: only parts of this Job are merged")
    checksum.add_argument("--verify-only", action="store_true", help="compare, and write nothing to the volume")

    rehash = command("rehash", _rehash, "Compare verified weights with the BLAKE3 of their manifest.")
    rehash.add_argument(
        "--release", type=Path, help="the release, JSON: files that differ from the manifest are compared with it"
    )
    rehash.add_argument("--run", dest="run_id", default="", help="name of the run, for the parts on the volume")
    collect = command("collect", _collect, "Delete the weights of a model, except those to keep.")
    collect.add_argument("--model", required=True, help="name of the model")
    collect.add_argument("--keep", nargs="*", default=[], metavar="KEY", help="folders to keep")
    collect.add_argument("--all", action="store_true", help="keep none")

    for subparser in (download, checksum):
        subparser.add_argument("--release", type=Path, required=True, help="the release, JSON")
    for subparser in (download, checksum, rehash):
        subparser.add_argument("--target", required=True, help="folder of the weights, relative to the root")
    for subparser in (download, checksum, rehash):
        subparser.add_argument("--max-mb-per-s", type=float, help="limit on the speed of reading the volume, MB/s")
    for subparser in (checksum, rehash):
        subparser.add_argument(
            "--from-volume", action="store_true", help="drop this node's page cache of the files first"
        )
    return parser


def _download(options: argparse.Namespace) -> Result:
    from llmops.worker.checksum import Reading
    from llmops.worker.download import download  # huggingface_hub is slow to import.
    from llmops.worker.files import inside
    from llmops.worker.pins import read_pins

    token_path = os.environ.get("HF_TOKEN_PATH")
    return download(
        read_pins(options.release),
        root=options.root,
        staging=inside(options.root, options.staging),
        target=inside(options.root, options.target),
        token_file=Path(token_path) if token_path else None,
        reading=Reading(options.max_mb_per_s),
    )


def _checksum(options: argparse.Namespace) -> Result:
    from llmops.worker.checksum import Reading, Shard, checksum
    from llmops.worker.files import inside
    from llmops.worker.pins import read_pins

    index = options.index if options.index is not None else int(os.environ.get("JOB_COMPLETION_INDEX", "0"))
    if not 0 <= index < options.shards:
        raise WorkerError("usage", f"--index {index} is not below --shards {options.shards}")
    return checksum(
        # An image may have the weights in its root.
        options.root if options.target == "." else inside(options.root, options.target),
        read_pins(options.release),
        Shard(index, options.shards, options.run_id),
        Reading(options.max_mb_per_s, options.from_volume),
        record=not options.verify_only,
    )


def _rehash(options: argparse.Namespace) -> Result:
    from llmops.worker.checksum import Reading, rehash, revalidate
    from llmops.worker.files import inside
    from llmops.worker.pins import read_pins

    target, reading = inside(options.root, options.target), Reading(options.max_mb_per_s, options.from_volume)
    if options.release is None:
        return rehash(target, reading)
    return revalidate(target, read_pins(options.release), reading, run=options.run_id)


def _collect(options: argparse.Namespace) -> Result:
    from llmops.worker.collect import collect

    return collect(options.root, options.model, options.keep, everything=options.all)


def _terminated(*_: object) -> None:
    # Process 1 of a container has no default action for SIGTERM. No cleanup: the next run converges from any state.
    os._exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminated)
    sys.exit(main())
