"""vLLM's parser reads a file of options like the equal command line."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from llmops_sandbox.programs import vllm

from llmops.releases.release import Release
from tests.unit.manifests.test_engine_configuration import ARGUMENTS, plain, with_arguments, written

# Parses each line of arguments as `vllm serve` does.
PROGRAM = """
import json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser

def parsed(line):
    parser = FlexibleArgumentParser(prog="vllm")
    make_arg_parser(parser.add_subparsers(dest="subparser").add_parser("serve"))
    options = vars(parser.parse_args(["serve", *line]))
    return {name: repr(value) for name, value in sorted(options.items()) if name != "config"}

json.dump([parsed(line) for line in json.load(open(sys.argv[1]))], open(sys.argv[2], "w"))
"""

# Each flag alone, all compatible ones together, and some twice.
LISTS = [
    *((flags,) for flags in ARGUMENTS if "lora" not in flags),
    ("--max-model-len=32K", "--gpu-memory-utilization=0.90", "--dtype=half", "--seed=-1", "--middleware=a.B"),
    ("--enable-prefix-caching", "--no-enable-prefix-caching", "--seed=1", "--seed=2"),
]


def test_a_file_is_the_command_line_that_it_stands_for(installed: vllm.Vllm, tmp_path: Path) -> None:
    base = Release.model_validate(
        {
            "model": "tiny",
            "weights": {"repo": "a/b", "commit": "0" * 40, "files": [{"path": "m.safetensors", "size": 1}]},
            "engine": {"image": "vllm/vllm-openai", "tag": "v0.32.0", "digest": f"sha256:{'0' * 64}"},
            **{name: {} for name in ("gpu", "resources", "evaluation", "rollout", "access")},
            "suites": [],
        }
    )
    lines: list[list[str]] = []
    for number, args in enumerate(LISTS):
        release, folder = with_arguments(base, args), tmp_path / str(number)
        folder.mkdir()
        lines += [written(release, folder), plain(release)]
    (tmp_path / "lines.json").write_text(json.dumps(lines))
    program = (str(installed.python), "-c", PROGRAM, str(tmp_path / "lines.json"), str(tmp_path / "parsed.json"))
    subprocess.run(program, check=True, timeout=300)
    parsed = json.loads((tmp_path / "parsed.json").read_text())
    assert len(parsed) == 2 * len(LISTS)
    for number, args in enumerate(LISTS):
        by_file, by_line = parsed[2 * number], parsed[2 * number + 1]
        assert by_file == by_line, args
    # The comparison notices a difference.
    assert parsed[0] != parsed[2]
