"""`meshctl doctor`: gathers, judges, prints."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict

from meshd.ctl import exits
from meshd.ctl.console import Body, shaped, show
from meshd.ctl.doctor.gather import gather
from meshd.ctl.doctor.rules import RULES, diagnose
from meshd.ctl.screen import Screen

STYLES = {"bad": "red", "warn": "yellow"}


def doctor(args: Namespace) -> int:
    """DEGRADED when anything is found."""
    found = shaped(lambda _: diagnose(gather(args)), {})
    body = {"healthy": not found, "checks": len(RULES), "findings": [asdict(f) for f in found]}
    show(args, body, _lines)
    return exits.DEGRADED if found else exits.OK


def _lines(body: Body, screen: Screen) -> list[str]:
    if body["healthy"]:
        return [f"{body['checks']} checks, nothing found: this machine is well in its mesh"]
    lines = []
    for finding in body["findings"]:
        lines += [f"{finding['level'].upper()} {finding['check']}: {finding['what']}"]
        lines += [f"  -> {finding['fix']}"]
    return lines
