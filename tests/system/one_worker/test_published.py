"""A local picture on its way to whoever opens a URL: uploaded, painted, published under a name, signed."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

from overpaint_producer import Producer
from tests.support.stack import Stack, encoded, eventually, picture


def test_a_local_picture_comes_back_under_a_name_and_by_a_url(
    serving: Stack, producer: Producer, tmp_path: Path
) -> None:
    """Given a file that only this machine has, when it is uploaded and painted twice over, then each variant's last
    picture is published under its name, byte for byte, and its URL gives it to anybody."""
    file = tmp_path / "my cat.png"
    file.write_bytes(encoded(picture()))
    source = producer.upload(file, str(serving.at("in")))
    one = {"op": "img2img", "prompt": "a blue square", "steps": 4, "strength": 0.5}

    handle = producer.repaint(
        source, [one, one], output=serving.output, variants=2, intermediates=True, name="cats/{stem}-{variant}.png"
    )
    record = handle.wait(60)
    eventually(lambda: handle.id not in {marker.job_id for marker in producer.ledger.open_jobs()}, "finished")

    assert serving.keys("out", "cats") == ["my cat-0.png", "my cat-1.png"]
    bodies = [serving.body(output.uri) for output in record.outputs]
    assert [serving.body(uri) for uri in record.published] == bodies
    urls = handle.urls()
    assert [urlsplit(url).path.rpartition("/")[2] for url in urls] == ["my%20cat-0.png", "my%20cat-1.png"]
    for url, body in zip(urls, bodies, strict=True):
        with urlopen(url, timeout=10) as answer:
            assert answer.read() == body
            assert answer.headers["content-type"] == "image/png"


def test_what_no_model_touched_is_published_too(serving: Stack, producer: Producer) -> None:
    """Given strength 0, when the job is done, then the source's own pixels lie under the published name."""
    handle = producer.img2img(
        serving.put("untouched.png", encoded(picture())),
        prompt="a blue square",
        strength=0,
        output=serving.output,
        name="untouched/{id}/{stem}.png",
    )
    record = handle.wait(60)
    eventually(lambda: serving.keys("out", "untouched", handle.id) == ["untouched.png"], "published")

    assert record.passthrough
    assert serving.body(record.published[0]) == serving.body(record.outputs[0].uri)
