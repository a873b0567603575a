"""The picture that compares runs."""

import pytest

from tests.report.conftest import synthetic
from whet.recipe import Refused
from whet.report.plots import picture, specification
from whet.runs.store import Store


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    root = tmp_path_factory.mktemp("several")
    return [
        synthetic(root / f"{recipe}-{seed}", steps=20, seed=seed, evaluations=0, kept=0, recipe=recipe)
        for recipe in ("grpo", "rloo")
        for seed in (0, 1)
    ]


def test_a_picture_is_made_of_both_kinds(several, tmp_path):
    assert picture(several, tmp_path / "new" / "a.png").read_bytes().startswith(b"\x89PNG")
    svg = picture(several, tmp_path / "a.svg", names=("entropy",)).read_text()
    assert "grpo" in svg
    assert "rloo" in svg


def test_lines_are_means_over_seeds_and_bands_their_standard_deviation(tmp_path):
    stores = []
    for seed, values in enumerate(([1.0, 2.0], [3.0, 2.0])):
        store = Store.create(tmp_path / str(seed), {"recipe": "grpo", "task": "digits"})
        for step, value in enumerate(values, start=1):
            store.log(step, {"entropy": value})
        stores.append(store)
    first, second = specification(stores, ["entropy"])["datasets"]["rows-entropy"]
    assert first["value"] == 2.0
    assert (first["low"], first["high"]) == pytest.approx((2 - 2**0.5, 2 + 2**0.5), abs=1e-4)
    assert (second["low"], second["high"]) == (2.0, 2.0)


def test_a_lone_seed_has_no_band_and_the_subtitle_says_so(several):
    spec = specification(several[:1], ["correct"])
    assert all(row["low"] == row["high"] for row in spec["datasets"]["rows-correct"])
    assert spec["title"]["subtitle"] == "mean over 1 seed"


def test_runs_of_different_length_are_averaged_where_both_have_steps(tmp_path):
    short = synthetic(tmp_path / "short", steps=5, evaluations=0, kept=0)
    long = synthetic(tmp_path / "long", steps=9, evaluations=0, kept=0)
    rows = specification([short, long], ["length"])["datasets"]["rows-length"]
    assert [row["step"] for row in rows] == list(range(1, 10))
    assert rows[-1]["low"] == rows[-1]["high"]


def test_what_cannot_be_drawn_is_refused_in_a_sentence(several, tmp_path):
    with pytest.raises(Refused, match="at least one run"):
        picture([], tmp_path / "a.png")
    with pytest.raises(Refused, match=r"a \.png or an \.svg"):
        picture(several, tmp_path / "a.jpg")
    with pytest.raises(Refused, match="has no metric 'joy'; it has clip_fraction, correct"):
        picture(several, tmp_path / "a.png", names=("joy",))
