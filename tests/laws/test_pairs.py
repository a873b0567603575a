"""What adds up obeys the laws too: some pairs of recipes each day, all of them with `-m long`.

WHET_PAIRS=NUMBER takes another sample; the number that is used is in the name of each test.
"""

import os
import random
from contextlib import contextmanager
from datetime import date
from functools import cache
from itertools import permutations

import pytest
import torch

from tests.laws import test_laws as laws
from whet.recipe import Refused, compose

RECIPES = laws.RECIPES
SAMPLE = int(os.environ.get("WHET_PAIRS", date.today().toordinal()))
SHARDS, A_SHARD = 4, 12
# In float64: among thousands of sums some divide by a deviation so small that float32's rounding passes any bound.
EQUALITIES = (
    laws.test_padding_changes_nothing,
    laws.test_the_order_of_responses_changes_nothing,
    laws.test_any_split_into_micro_batches_gives_the_same_gradient,
)
BY_PLACE = {"quark"}  # among equal rewards the earlier response is the better one, as its `departs` says
OTHERS = (
    laws.test_the_gradient_is_finite_where_probabilities_are_extreme,
    laws.test_reads_only_known_fields,
    laws.test_a_recipe_travels_between_processes,
)


@cache
def pairs() -> list:
    """Every sum of two recipes that is not refused."""
    found = []
    for one, other in permutations(RECIPES.values(), 2):
        try:
            found.append(compose(one, other))
        except Refused:
            continue
    return found


@contextmanager
def numbers(kind: torch.dtype):
    """The format of the random numbers that a case is made of, and so of all that is computed from them."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def obeys(monkeypatch, sum_) -> None:
    monkeypatch.setitem(RECIPES, sum_.name, sum_)
    broken = []
    for law in (*EQUALITIES, *OTHERS):
        if law is laws.test_the_order_of_responses_changes_nothing and BY_PLACE & set(sum_.name.split("+")):
            continue
        try:
            with numbers(torch.float64 if law in EQUALITIES else torch.float32):
                law(sum_.name)
        except Exception as error:
            broken.append(f"{sum_.name}: {law.__name__}: {str(error).splitlines()[0] if str(error) else error!r}")
    monkeypatch.delitem(RECIPES, sum_.name)
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.parametrize("sample", [SAMPLE])
def test_some_pairs_obey_the_laws(monkeypatch, shard, sample):
    drawn = random.Random(sample).sample(pairs(), SHARDS * A_SHARD)
    for sum_ in drawn[shard * A_SHARD : (shard + 1) * A_SHARD]:
        obeys(monkeypatch, sum_)


@pytest.mark.long
@pytest.mark.parametrize("first", sorted(RECIPES))
def test_all_pairs_obey_the_laws(monkeypatch, first):
    for sum_ in pairs():
        if sum_.name.split("+")[0] == first:
            obeys(monkeypatch, sum_)


def test_most_pairs_add_up():
    assert len(pairs()) > 4000
