"""`overpaint submit --upload` and `--name`: where pictures are put first, and what copies are called."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from overpaint_common.fleet import ControlCard
from tests.cli.conftest import Place


@pytest.fixture
def elsewhere(place: Place) -> Path:
    """A picture that workers may not read where it is."""
    file = place.folder / "desk" / "my cat.png"
    file.parent.mkdir()
    file.write_bytes(place.source.read_bytes())
    return file


def inbox(place: Place, file: Path) -> str:
    """Where an upload puts a file."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:32]
    return (place.folder / "in" / digest / file.name).as_uri()


def test_a_file_out_of_reach_is_refused_with_the_way_to_upload_it(place: Place, elsewhere: Path) -> None:
    """Given a file that workers may not read, when it is submitted, then the error says how to upload it."""
    done = place.run("submit", str(elsewhere), str(place.output), "--prompt", "x")

    assert done.exit_code == 2
    assert done.stderr.startswith("error[forbidden_reference]:")
    assert "upload it first (Producer.upload, or --upload with overpaint submit)" in done.stderr


def test_files_are_uploaded_before_their_job_is_sent(place: Place, elsewhere: Path) -> None:
    """Given a source, and a control picture of the same name, when they are uploaded, then the job reads both there."""
    place.announce(alive=True, controls=(ControlCard(name="pose", reads="picture"),))
    control = elsewhere.with_name("pose.png")
    control.write_bytes(elsewhere.read_bytes())

    done = place.run(
        *("submit", str(elsewhere), str(place.output), "-p", "x", "--control", f"pose:0.5@{control}"),
        *("--upload", str(place.folder / "in")),
    )

    assert done.exit_code == 0, done.output
    (job,) = place.requests()
    assert job["source"] == inbox(place, elsewhere)
    assert job["passes"][0]["controls"][0]["image"] == inbox(place, control)
    assert Path(job["source"].removeprefix("file://").replace("%20", " ")).read_bytes() == elsewhere.read_bytes()


def test_a_mask_is_uploaded_too_and_a_reference_stays(place: Place, elsewhere: Path) -> None:
    """Given a source in S3 and a local mask, when the mask is uploaded, then the source is where it was."""
    place.announce(alive=True, operations=("inpaint",), reads=(place.folder.as_uri() + "/in/", "s3://photos/"))

    done = place.run(
        *("submit", "s3://photos/cat.jpg", str(place.output), "-p", "x", "--mask", str(elsewhere)),
        *("--upload", (place.folder / "in").as_uri()),
    )

    assert done.exit_code == 0, done.output
    (job,) = place.requests()
    assert (job["source"], job["passes"][0]["mask"]) == ("s3://photos/cat.jpg", inbox(place, elsewhere))


def test_what_is_no_picture_is_not_uploaded(place: Place, elsewhere: Path) -> None:
    """Given a text with a picture's name, when it should be uploaded, then the error names it and nothing is sent."""
    elsewhere.write_text("not a picture")

    done = place.run("submit", str(elsewhere), str(place.output), "-p", "x", "--upload", str(place.folder / "in"))

    assert done.stderr.startswith("error[source_not_a_picture]:")
    assert str(elsewhere) in done.stderr
    assert done.exit_code == 2
    assert not place.requests()


def test_a_template_reaches_the_job_and_a_wrong_one_does_not(place: Place) -> None:
    """Given templates, when jobs are submitted with them, then a good one is in the job, and a bad one is explained."""
    place.submit("--name", "{stem}-{variant}.png", "--variants", "2")
    done = place.run(
        *("submit", str(place.source), str(place.output), "-p", "x", "--name", "{stem}.png", "--variants", "2")
    )

    (job,) = place.requests()
    assert job["output"]["name"] == "{stem}-{variant}.png"
    assert (done.exit_code, done.stdout) == (2, "")
    assert "put {variant} into it" in done.stderr
