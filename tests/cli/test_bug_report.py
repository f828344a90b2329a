"""``biomedcoop doctor --bug-report``: what an issue needs, and nothing that names a person or a place."""

from __future__ import annotations

import getpass
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from biomedcoop.cli.bug_report import bug_report, markdown, without_places
from biomedcoop.version import __version__


def test_a_report_is_a_table_without_places(cli: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BIOMEDCOOP_CACHE", str(tmp_path / "jane doe" / "cache"))
    monkeypatch.setenv("BIOMEDCOOP_TOKEN", "do-not-tell")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    result = cli("doctor", "--bug-report")
    assert result.status == 0, result.err
    head, line, *rows = result.out.splitlines()
    assert (head, line) == ("| `biomedcoop doctor --bug-report` | |", "|---|---|")
    facts = dict(row.strip("| ").split(" | ", 1) for row in rows)
    assert (facts["biomedcoop"], facts["torch"]) == (__version__, str(torch.__version__))
    assert {"python", "numpy", "platform", "CPU cores", "GPU", "DICOM", "mini backbone"} < facts.keys()
    assert "OMP_NUM_THREADS=1" in facts["threads"]
    assert "mini" in facts["backbones here"].split(", ")
    assert "PNG" in facts["image formats"].upper()
    assert "safetensors " in facts["packages"]
    assert "BIOMEDCOOP_TOKEN" in facts["environment (names alone)"]
    for secret in ("do-not-tell", "jane", str(tmp_path), str(Path.home()), str(Path(__file__).parents[2])):
        assert secret not in result.out
    assert json.loads(cli("doctor", "--bug-report", "--json").out).keys() == facts.keys()


def test_an_error_loses_its_folders_and_the_users_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "jdoe")
    error = f"{Path.home()}/x/model.safetensors: damaged; C:\\Users\\jdoe\\model and /data/jdoe/run belong to jdoe"
    assert without_places(error) == "~…/model.safetensors: damaged; …/model and …/run belong to USER"
    bad = {
        "mini backbone": {"ok": False, "result": "/home/a/b.bin: gone"},
        "feature store": {"ok": False, "result": "/a/b"},
    }
    facts = bug_report(bad)
    assert facts["mini backbone"] == "wrong: …/b.bin: gone"
    assert facts["feature store"] == "cannot be used"
    assert markdown({"a": "b|c\nd"}).splitlines()[-1] == "| a | b\\|c d |"
