"""Which test runs each block of code of the pages: most go by their language, the others are claimed here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tests.docs.pages import pages, typed
from tools.gallery import drawings

TESTS = "tests/docs"
CLAIMED: Mapping[tuple[str, str], str] = {
    ("README.md", "make demo"): "tests/cli/test_demo.py::test_the_sheet_and_every_picture_are_there",
    ("README.md", "overpaint up"): f"{TESTS}/conftest.py::newcomer",
    ("README.md", "overpaint submit"): f"{TESTS}/test_examples.py::test_the_shell_example_repaints_the_picture",
    ("README.md", "overpaint sweep"): f"{TESTS}/test_examples.py::test_strengths_are_shown_and_a_job_repeated",
    ("README.md", "overpaint worker"): f"{TESTS}/test_handbook.py::test_a_worker_starts_with_what_the_page_exports",
    ("README.md", "record = job.wait(timeout"): f"{TESTS}/test_examples.py::test_the_python_example_makes_a_picture",
    ("README.md", "for picture in"): f"{TESTS}/test_examples.py::test_the_loop_can_be_run_again",
    ("docs/quickstart.md", "make demo"): "tests/cli/test_demo.py::test_the_sheet_and_every_picture_are_there",
    ("docs/quickstart.md", "overpaint up"): f"{TESTS}/conftest.py::newcomer",
    ("docs/quickstart.md", "overpaint worker"): f"{TESTS}/conftest.py::newcomer",
    ("docs/producer.md", "def receive"): f"{TESTS}/test_examples.py::test_the_receiver_takes_what_is_signed",
    ("docs/protocol.md", "```json"): f"{TESTS}/test_contract_pages.py::test_the_jobs_and_records_of_the_protocol_page",
    ("docs/protocol.md", "```http"): f"{TESTS}/test_contract_pages.py::test_the_webhook_of_the_protocol_page",
    ("docs/protocol.md", "```js"): f"{TESTS}/test_examples.py::test_the_producer_in_another_language",
    (
        "docs/handbook.md",
        "overpaint worker",
    ): f"{TESTS}/test_handbook.py::test_a_worker_starts_with_what_the_page_exports",
    ("docs/handbook.md", "overpaint keeper"): f"{TESTS}/test_handbook.py::test_a_keeper_starts_and_leads",
    (
        "docs/handbook.md",
        "overpaint dead list",
    ): f"{TESTS}/test_handbook.py::test_dead_letters_are_shown_and_done_again",
    ("docs/handbook.md", "appendonly"): f"{TESTS}/test_handbook.py::test_redis_takes_what_the_page_configures",
    ("docs/handbook.md", "[Service]"): f"{TESTS}/test_handbook.py::test_the_unit_of_systemd_starts_a_worker",
    ("docs/handbook.md", "```json"): f"{TESTS}/test_handbook.py::test_the_policy_is_what_the_settings_page_asks_for",
    ("docs/handbook.md", "import boto3"): f"{TESTS}/test_handbook.py::test_the_lifecycle_spares_what_is_open",
    ("docs/families.md", "FAMILY"): f"{TESTS}/test_families_page.py::test_the_family_of_the_page_shares_forwards",
    ("docs/families.md", "make test"): f"{TESTS}/test_pages.py::test_every_make_target_exists",
    ("docs/deployment.md", "```sh"): "tests/infra/test_page.py::test_every_command_of_the_page_names_what_exists",
    ("docs/development.md", "make test"): f"{TESTS}/test_pages.py::test_every_make_target_exists",
    (
        "docs/development.md",
        "python -m training",
    ): "tests/training/test_export.py::test_the_sheet_command_draws_every_shape",
    ("docs/cli.md", "```text"): f"{TESTS}/test_generated.py::test_the_page_is_what_the_code_says",
    (
        "docs/settings.md",
        'redis_url = "',
    ): f"{TESTS}/test_contract_pages.py::test_the_file_on_the_settings_page_is_read",
}
"""The test that sees to a block, by its page and what one of its lines begins with.

Of all a page's blocks in one language the first line counts as that language's fence.
"""

BY_LANGUAGE = ("sh", "python", "json", "toml")
"""What test_snippets.py reads and test_examples.py runs wherever it stands."""


class Snippet(NamedTuple):
    """One block of code."""

    page: str
    language: str
    body: str

    @property
    def claims(self) -> list[tuple[str, str]]:
        """Those of CLAIMED that are for it."""
        fence, lines = f"```{self.language}", [line.strip() for line in self.body.splitlines()]
        mine = [key for key in CLAIMED if key[0] == self.page]
        return [key for key in mine if key[1] == fence or any(line.startswith(key[1]) for line in lines)]

    @property
    def drawn(self) -> bool:
        """Whether it makes a picture of the gallery, which was made by it."""
        return bool(list(drawings(f"```sh\n{self.body}```\n"))) and self.page.startswith("docs/operations/")


def snippets() -> list[Snippet]:
    """All of them."""
    return [Snippet(found.name, language, body) for found in pages() for language, body in found.code]


def to_run(language: str) -> dict[str, list[str]]:
    """The blocks in a language that no other test claims, by page; one that is on several pages at the first."""
    found: dict[str, list[str]] = {}
    seen: set[str] = set()
    for snippet in snippets():
        if snippet.language == language and snippet.body not in seen:
            seen.add(snippet.body)
            if not snippet.claims and not snippet.drawn:
                found.setdefault(snippet.page, []).append(snippet.body)
    return found


def calls_of_the_command_line(block: str) -> bool:
    """Whether a shell block is nothing but calls of `overpaint`."""
    return all(line.startswith("overpaint ") for line in typed(block))
