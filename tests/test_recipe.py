"""Recipes as values: wiring by name, settings by address, and adding up."""

import itertools
import re
from functools import partial

import pytest
import torch

from tests.laws.harness import case, gradient
from whet import describe, plain, shelf
from whet.papers import dapo, dr_grpo, gae, grpo, gspo, kl_estimators, ppo, rloo
from whet.recipe import ONE, SEVERAL, Refused, Remembers, call, compose, contribution, name_of, same, scored
from whet.settings import settings, with_settings

RECIPES = shelf.every_recipe()


def test_a_part_receives_exactly_the_fields_it_names():
    assert call(lambda group, reward: (group, reward), {"reward": 1, "group": 2, "other": 3}) == (2, 1)


def test_a_misspelt_field_is_answered_with_the_nearest():
    def advantage(rewrad):
        return rewrad

    with pytest.raises(Refused, match=r"'rewrad'.*nearest is 'reward'"):
        call(advantage, {"reward": 1, "group": 2})


def test_a_part_with_a_memory_gets_back_what_it_returned():
    def running(reward, memory):
        return reward - memory, 0.5 * memory + 0.5 * reward

    part, memories = Remembers(running, start=0.0), {}
    assert [call(part, {"reward": 1.0}, memories) for _ in range(3)] == [1.0, 0.5, 0.25]
    assert memories == {"running": 0.875}


def test_what_a_recipe_needs_is_read_off_its_signatures():
    assert scored(rloo.recipe) == []
    assert scored(grpo.recipe) == ["ref_logp"]
    assert scored(ppo.recipe) == ["value", "old_logp"]
    assert scored(grpo.recipe.with_(update=partial(plain.one_pass, epochs=2))) == ["old_logp", "ref_logp"]
    assert scored(RECIPES["k1_reward"]) == ["old_logp", "ref_logp"]


def test_settings_are_changed_by_address_and_typed_like_their_default():
    wanted = {"loss.high": "0.3", "sample.responses": "8", "soft_overlong.factor": "0.5"}
    changed = with_settings(dapo.recipe, wanted)
    found = settings(changed)
    assert (found["loss.high"], found["sample.responses"], found["reward.soft_overlong.factor"]) == (
        0.3,
        8,
        0.5,
    )
    assert settings(dapo.recipe)["loss.high"] == 0.28
    assert changed.claims == dapo.recipe.claims


@pytest.mark.parametrize(
    ("address", "value", "sentence"),
    [
        ("loss.hihg", "0.3", "nearest is 'loss.high'"),
        ("epochs", "many", "is a int"),
        ("penalties.k1.beta", "1", "penalties.k3.beta"),
    ],
)
def test_a_wrong_setting_is_answered_with_what_there_is(address, value, sentence):
    with pytest.raises(Refused, match=sentence):
        with_settings(grpo.recipe, {address: value})


def test_an_unknown_stage_is_refused():
    with pytest.raises(Refused, match=r"'advantge'.*nearest is 'advantage'"):
        grpo.recipe.with_(advantge=rloo.leave_one_out)


def test_a_recipe_added_to_its_own_base_is_itself():
    for name, recipe in RECIPES.items():
        if recipe.base is not None:
            sum_ = compose(recipe.base, recipe)
            assert all(same(a, b) for (_, a), (_, b) in zip(sum_.parts(), recipe.parts(), strict=True)), name


def test_several_valued_stages_concatenate_and_single_valued_ones_replace():
    sum_ = shelf.load("rloo+k1_reward+k2_loss+dynamic_sampling")
    assert [name_of(part) for part in sum_.reward] == ["task_score", "minus_k1"]
    assert [name_of(part) for part in sum_.penalties] == ["k2"]
    assert sum_.sample is dapo.until_mixed
    assert sum_.advantage is rloo.leave_one_out


def test_what_a_paper_leaves_out_is_left_out_of_the_sum():
    assert grpo.recipe.penalties
    assert (grpo.recipe + dapo.recipe).penalties == ()


@pytest.mark.parametrize("pair", ["dapo+gspo", "grpo+rloo", "ppo+rloo", "dr_grpo+gspo+dapo"])
def test_two_papers_that_set_the_same_stage_are_refused_by_name(pair):
    with pytest.raises(Refused) as refusal:
        shelf.load(pair)
    sentence = str(refusal.value)
    assert "both set" in sentence
    assert sum(name in sentence for name in pair.split("+")) >= 2


def test_the_same_part_with_other_settings_is_refused():
    strong = grpo.recipe.with_(name="strong", penalties=(partial(kl_estimators.k3, beta=0.5),))
    other = grpo.recipe.with_(name="other", penalties=(partial(kl_estimators.k3, beta=0.1),))
    with pytest.raises(Refused, match="k3"):
        compose(strong, other)


def test_nothing_can_be_added_that_is_built_on_nothing():
    with pytest.raises(Refused, match="put it first: reinforce\\+grpo"):
        shelf.load("grpo+reinforce")


def test_every_pair_composes_or_is_refused_in_one_sentence():
    for one, other in itertools.permutations(RECIPES, 2):
        sum_, sentence = summed(RECIPES[one], RECIPES[other])
        if sum_ is None:
            assert sentence.count("\n") == 0
            assert one in sentence
            assert other in sentence
            assert disputed(sentence) in (*contribution(RECIPES[other]), "nothing"), sentence
            continue
        for stage in contribution(RECIPES[other]):
            if stage in ONE:
                assert same(getattr(sum_, stage), getattr(RECIPES[other], stage))


def disputed(sentence):
    """The field that a refusal names; `nothing` where the second recipe is built on nothing."""
    named = re.search(r"both set (\w+)( part \w+)? \(|is built on (nothing)", sentence)
    assert named, sentence
    stage = named[1] or named[3]
    assert stage == "nothing" or (stage in SEVERAL if named[2] else stage in ONE), sentence
    return stage


def summed(one, other):
    try:
        return compose(one, other), ""
    except Refused as refusal:
        return None, str(refusal)


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        ("gpro", "nearest: .*grpo"),
        ("grpo+", "empty term"),
        ("mine.py", "no file 'mine.py'"),
    ],
)
def test_an_unknown_recipe_is_answered_with_the_nearest(expression, sentence):
    with pytest.raises(Refused, match=sentence):
        shelf.load(expression)


def test_a_recipe_in_a_users_own_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "import torch\n"
        "from whet.papers import rloo\n"
        "def halved(reward, group):\n    return 0.5 * rloo.leave_one_out(reward, group)\n"
        "recipe = rloo.recipe.with_(name='mine', advantage=halved, new='half of rloo')\n"
    )
    sum_ = shelf.load(f"{file}+dynamic_sampling")
    assert sum_.name == "mine+dynamic_sampling"
    half, whole = gradient(shelf.load(str(file)), case(0)), gradient(rloo.recipe, case(0))
    torch.testing.assert_close(2 * half["logp"], whole["logp"])


def test_shared_ancestors_do_not_hide_a_contradiction():
    assert not same(dr_grpo.recipe.normalise, dapo.recipe.normalise)
    with pytest.raises(Refused, match="dr_grpo and dapo both set normalise"):
        compose(dr_grpo.recipe, dapo.recipe)


def test_a_later_paper_may_refine_what_its_ancestor_set():
    assert same(compose(gae.recipe, ppo.recipe).loss, ppo.recipe.loss)
    assert same(compose(grpo.recipe, gspo.recipe).loss, gspo.recipe.loss)


def test_a_setting_that_is_bound_on_one_line_has_the_comment_of_that_line_as_its_source():
    rows = {row["address"]: row["source"] for row in describe.settings_table(shelf.load("luspo"))}
    assert rows["loss.low"] == rows["loss.high"] == "section 5.1"
    rows = {row["address"]: row["source"] for row in describe.settings_table(shelf.load("degrpo"))}
    assert rows["normalise.alpha"] == "the authors' code"
    assert rows["penalties.k3.beta"] == "the authors' script"
