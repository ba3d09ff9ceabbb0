"""The catalogue: every code explained, in words that fit a terminal, and published as it is."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest
from stapleguard.finding import CATALOGUE, Code, Entry, criticals, find
from stapleguard.model import Severity

pytestmark = pytest.mark.unit

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "findings.md"
FAMILIES = {"material", "ocsp", "dns", "net", "responder", "server", "served", "staple", "host"}
EVERY = pytest.mark.parametrize("code", Code, ids=lambda code: code.value)


def texts(entry: Entry) -> tuple[str, ...]:
    return entry.title, entry.recognised, entry.remedy, entry.reference


def test_every_code_has_an_entry_and_no_entry_is_without_a_code() -> None:
    assert list(CATALOGUE) == list(Code)


def test_codes_are_unique() -> None:
    # Enum makes a second name for one value an alias, which iteration hides.
    assert len(Code.__members__) == len(list(Code))


@EVERY
def test_a_code_is_family_dot_kebab_and_its_name_follows_from_it(code: Code) -> None:
    assert re.fullmatch(r"[a-z]+\.[a-z]+(-[a-z]+)*", code.value)
    assert code.value.partition(".")[0] in FAMILIES
    assert code.name == code.value.replace(".", "_").replace("-", "_").upper()


@EVERY
def test_every_text_is_there_on_one_line_and_printable(code: Code) -> None:
    for text in texts(CATALOGUE[code]):
        assert text.strip() == text != ""
        assert "  " not in text
        assert not [
            char for char in text if unicodedata.category(char).startswith(("C", "Z")) and char != " "
        ]


@EVERY
def test_a_title_is_one_short_line_without_a_full_stop(code: Code) -> None:
    title = CATALOGUE[code].title
    assert len(title) <= 90
    assert not title.endswith(".")


@EVERY
def test_a_remedy_is_numbered_steps_that_end_with_a_full_stop(code: Code) -> None:
    remedy = CATALOGUE[code].remedy
    numbers = [int(number) for number in re.findall(r"\((\d)\) ", remedy)]
    assert remedy.startswith("(1) ")
    assert numbers == list(range(1, len(numbers) + 1))
    assert all(step.rstrip().endswith((".", "?")) for step in re.split(r"\(\d\) ", remedy)[1:])
    assert remedy.endswith(".")


@EVERY
def test_commands_are_closed_and_the_recognition_is_a_sentence(code: Code) -> None:
    entry = CATALOGUE[code]
    assert all(text.count("`") % 2 == 0 for text in texts(entry))
    assert entry.recognised.endswith(".")
    assert "`" not in entry.title


def test_a_finding_takes_severity_and_remedy_from_the_catalogue_unless_told() -> None:
    plain = find(Code.STAPLE_ABSENT, "www.site.test", "none in 8 handshakes")
    raised = find(Code.STAPLE_ABSENT, "www.site.test", "none", severity=Severity.CRITICAL, remedy="Wait.")
    assert (plain.severity, plain.remedy) == (Severity.WARNING, CATALOGUE[Code.STAPLE_ABSENT].remedy)
    assert (raised.severity, raised.remedy) == (Severity.CRITICAL, "Wait.")
    assert criticals([plain, raised]) == (raised,)
    assert raised.critical
    assert not plain.critical


def test_evidence_is_a_copy_that_cannot_be_changed() -> None:
    facts = {"status": 3}
    finding = find(Code.OCSP_TRY_LATER, "http://ocsp.ca.test", "tryLater", evidence=facts)
    facts["status"] = 0
    assert finding.evidence == {"status": 3}
    with pytest.raises(TypeError):
        finding.evidence["status"] = 1  # type: ignore[index]  # a read-only mapping is what is being shown


def test_the_published_page_names_every_code_and_no_other() -> None:
    headings = re.findall(r"^### (\S+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == [code.value for code in Code]


def test_the_published_page_holds_the_text_of_every_entry() -> None:
    page = PAGE.read_text(encoding="utf-8")
    absent = [
        code.value
        for code, entry in CATALOGUE.items()
        if entry.title not in page or entry.recognised not in page or entry.reference not in page
    ]
    assert absent == []
