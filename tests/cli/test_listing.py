"""`overpaint jobs`: for people at a terminal, for `cut` and `xargs` in a pipe, for programs as JSON."""

from __future__ import annotations

import json
import re

import pytest

from overpaint_common.references import Reference
from tests.cli.conftest import Place


@pytest.fixture
def submitted(place: Place) -> list[str]:
    """Given three jobs of which one is labelled, and one that was cancelled; their ids."""
    ids = [place.submit("--label", "customer=acme"), place.submit(), place.submit()]
    assert place.run("cancel", ids[1]).exit_code == 0
    return ids


def test_in_a_pipe_each_job_is_one_line_of_tab_separated_fields(place: Place, submitted: list[str]) -> None:
    lines = [line.split("\t") for line in place.run("jobs").stdout.splitlines()]

    assert {line[0] for line in lines} == set(submitted)
    assert all(len(line) == 7 and line[5] == str(Reference.from_path(place.source)) for line in lines)
    (acme,) = [line for line in lines if line[6] == "customer=acme"]
    assert acme[0] == submitted[0]
    assert acme[1] == "queued"
    assert re.fullmatch(r"\d+[sm]", acme[2])


def test_filters_choose_and_ids_alone_can_be_handed_on(place: Place, submitted: list[str]) -> None:
    assert place.run("jobs", "--state", "cancelled", "--ids").stdout.split() == [submitted[1]]
    assert place.run("jobs", "--label", "customer=acme", "--ids").stdout.split() == [submitted[0]]
    assert set(place.run("jobs", "--state", "queued", "--ids").stdout.split()) == {submitted[0], submitted[2]}


def test_as_json_each_job_is_one_object(place: Place, submitted: list[str]) -> None:
    documents = [json.loads(line) for line in place.run("jobs", "--json").stdout.splitlines()]

    assert {document["id"] for document in documents} == set(submitted)
    (cancelled,) = [document for document in documents if document["progress"]["state"] == "cancelled"]
    assert cancelled["id"] == submitted[1]


def test_a_cut_listing_says_how_to_go_on(place: Place, submitted: list[str]) -> None:
    first = place.run("jobs", "--limit", "2", "--ids")
    (after,) = re.findall(r"go on with --after (\S+)", first.stderr)

    second = place.run("jobs", "--after", after, "--ids")

    assert sorted(first.stdout.split() + second.stdout.split()) == sorted(submitted)


def test_none_found_is_said_beside_the_output(place: Place) -> None:
    result = place.run("jobs", "--state", "failed", "--since", "2h")

    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no such job within 2h\n")


def test_a_label_cannot_steer_the_terminal(place: Place) -> None:
    place.submit("--label", "name=a\x1b[2Jb")

    shown = place.run("jobs").stdout

    assert "\x1b" not in shown
    assert "\\u001b[2Jb" in shown
