"""What a page says of a run is what the run's result file says."""

import json
from importlib import import_module
from pathlib import Path

import pytest

from whet.report import quoted

ROOT = Path(__file__).parents[1]
PASSAGES = {  # name of the passage → page, result file, whose `told` writes it
    "record": ("vllm.md", "vllm.json", "tests.vllm.record"),
    "agreement": ("vllm.md", "vllm-agrees.json", "tests.vllm.agree"),
    "stale": ("vllm.md", "vllm-stale.json", "tests.vllm.stale"),
    "showcase": ("showcase.md", "showcase.json", "examples.showcase"),
}


@pytest.mark.parametrize("name", PASSAGES)
def test_a_page_quotes_its_result(name):
    page, result, module = PASSAGES[name]
    told = import_module(module).told(json.loads((ROOT / "results" / result).read_text()))
    assert quoted.stands(ROOT / "docs" / page, name) == told.strip()


def test_a_passage_is_written_again_and_nothing_else(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A\n\n<!-- mine -->\nold\n<!-- end of mine -->\n\nend\n")
    quoted.put(page, "mine", "new\n\nlines\\1\n")
    assert page.read_text() == "# A\n\n<!-- mine -->\nnew\n\nlines\\1\n<!-- end of mine -->\n\nend\n"
    assert quoted.stands(page, "mine") == "new\n\nlines\\1"
    with pytest.raises(ValueError, match="no passage named 'other'"):
        quoted.stands(page, "other")
    with pytest.raises(ValueError, match="0 passages named 'other'"):
        quoted.put(page, "other", "")
