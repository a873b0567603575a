"""A passage of a page that is written from a result file, between two marks that a reader of the page does not see."""

import re
from pathlib import Path


def _passage(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end of {re.escape(name)} -->)", re.S)


def put(page: Path, name: str, text: str) -> None:
    """Write the passage `name` of a page again; the page must have its marks."""
    before = page.read_text(encoding="utf-8")
    after, found = _passage(name).subn(lambda marks: f"{marks[1]}{text.strip()}\n{marks[2]}", before)
    if found != 1:
        raise ValueError(f"{page} has {found} passages named {name!r}, not one.")
    page.write_text(after, encoding="utf-8")


def stands(page: Path, name: str) -> str:
    """The passage `name` as the page has it now."""
    found = _passage(name).search(page.read_text(encoding="utf-8"))
    if not found:
        raise ValueError(f"{page} has no passage named {name!r}.")
    return found[0].partition("\n")[2].rpartition("<!--")[0].strip()
