"""`meshctl completion bash|zsh|tcsh`: what a shell needs to complete our words.

Made by shtab from the very parser that reads them, so it cannot lag behind.
"""

from __future__ import annotations

from argparse import Namespace

from meshd.ctl import exits
from meshd.ctl.console import print_lines

SHELLS = ("bash", "zsh", "tcsh")


def completion(args: Namespace) -> int:
    """The script, on standard output: `eval "$(meshctl completion bash)"`."""
    import shtab

    from meshd.ctl.app import build_parser  # which names this command

    parser, _ = build_parser()
    print_lines([shtab.complete(parser, shell=args.shell)])
    return exits.OK
