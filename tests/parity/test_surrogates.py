"""Our numbers are the numbers of the reference implementations on the same input (golden/surrogates.json)."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import tensor

from whet import groups, plain
from whet.papers import cispo, dr_grpo, dual_clip, gae, grpo, gspo, kl_estimators, opo, ppo, reinforce, rloo
from whet.recipe import call

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "surrogates.json").read_text())
F1 = {name: tensor(rows) for name, rows in GOLDEN["F1"].items()}
MASK = F1["mask"].bool()
TOLERANCE = {"rtol": 1e-5, "atol": 1.1e-6}


def fields(**more):
    advantage = groups.spread(F1["advantage"], MASK)
    return {**F1, "mask": MASK, "advantage": advantage, "logp": F1["logp"].clone().requires_grad_(), **more}


def close(found, expected):
    torch.testing.assert_close(torch.as_tensor(found).float(), tensor(expected).float(), **TOLERANCE)


@pytest.mark.parametrize(
    ("name", "loss", "normalise"),
    [
        ("reinforce", reinforce.policy_gradient, plain.over_tokens),
        ("ppo", ppo.clip, plain.over_tokens),
        ("dual_clip", partial(dual_clip.dual_clip, high=0.28), plain.over_tokens),
        ("gspo", gspo.sequence_clip, grpo.over_responses),
        ("gspo_wide", partial(gspo.sequence_clip, low=0.2, high=0.28), grpo.over_responses),
        ("cispo", cispo.clipped_weight, plain.over_tokens),
    ],
)
def test_loss_and_gradient(name, loss, normalise):
    given = fields()
    total = (normalise(MASK) * call(loss, given)).sum()
    close(total, GOLDEN[name]["loss"])
    close(torch.autograd.grad(total, given["logp"])[0], GOLDEN[name]["grad"])


def test_grpo_with_its_penalty():
    low, high, bound = GOLDEN["grpo_objective"]["clip"]
    given = fields()
    loss = call(partial(dual_clip.dual_clip, low=low, high=high, bound=bound), given) + call(kl_estimators.k3, given)
    close((grpo.over_responses(MASK) * loss).sum(), GOLDEN["grpo_objective"]["loss"])


@pytest.mark.parametrize("name", ["k1", "k2", "k3"])
def test_kl_estimates(name):
    part = partial(getattr(kl_estimators, name), beta=1.0)
    close(groups.batch_mean(call(part, fields()), MASK), GOLDEN["kl"][name])


def test_kl_in_the_reward():
    golden = GOLDEN["kl_in_reward"]
    shaped = call(partial(kl_estimators.minus_k1, beta=golden["beta"]), fields())
    close(groups.at_last_token(tensor(golden["scores last token"]), MASK) + shaped, golden["rewards"])


def test_where_the_kl_estimate_is_put_decides_what_is_optimised():
    golden = GOLDEN["kl_categorical"]
    p, q = tensor(golden["p"]), tensor(golden["q"])
    z = p.log().clone().requires_grad_()
    logp = torch.log_softmax(z, 0)

    def expected_gradient(per_outcome):
        return torch.autograd.grad((p * per_outcome).sum(), z, retain_graph=True)[0]

    args = {"logp": logp[None], "ref_logp": q.log()[None], "beta": 1.0}
    close(expected_gradient(kl_estimators.k1(**args)[0]), [0.0, 0.0, 0.0])
    close(expected_gradient(kl_estimators.k2(**args)[0]), golden["k2_loss"])
    close(expected_gradient(kl_estimators.k3(**args)[0]), golden["k3_loss"])
    for name, expected in (("minus_k1", golden["k1_reward"]), ("minus_k3", golden["k3_reward"])):
        part = getattr(kl_estimators, name)
        reward = part(p.log()[None], q.log()[None], torch.ones(1, 3).bool(), beta=1.0)[0]
        close(expected_gradient(-reward * logp), expected)


def test_advantages():
    one_group = torch.zeros(4, dtype=torch.long)
    for name, part in (("grpo", grpo.z_score), ("dr_grpo", dr_grpo.centred), ("rloo", rloo.leave_one_out)):
        golden = GOLDEN[f"{name}_advantage"]
        close(part(tensor(golden["reward"]).float(), one_group), golden["value"])
    golden = GOLDEN["grpo_advantage"]
    reward = tensor(golden["reward"]).float()
    close(grpo.z_score(reward, one_group, epsilon=1e-4), golden["trl"])
    close(grpo.z_score(reward, one_group, epsilon=1e-9), golden["openrlhf"])
    golden = GOLDEN["opo_advantage"]
    close(
        opo.length_weighted(tensor(golden["reward"]), one_group[:3], tensor(golden["length"]).long()),
        golden["value"],
    )


def test_a_lone_response():
    """Cross-library conflict: verl's grpo gives r/(1+eps), its scalar rloo gives r, its vectorised rloo 0. Ours: 0."""
    lone = torch.zeros(1, dtype=torch.long)
    for part in (grpo.z_score, dr_grpo.centred, rloo.leave_one_out):
        assert float(part(tensor([1.0]), lone)) == 0


def test_generalized_advantage():
    golden, reward, value = GOLDEN["gae"], tensor([[0.0, 0, 0, 1]]), tensor([[0.1, 0.2, 0.3, 0.4]])
    all_on = torch.ones(1, 4).bool()
    advantage = gae.generalized_advantage(reward, value, all_on)
    close(advantage[0], golden["A"])
    close((advantage + value)[0], golden["returns"])
    close(gae.whitened(advantage, all_on)[0], golden["whitened"])
    close(gae.generalized_advantage(reward, value, all_on, lam=1.0)[0], golden["lambda_one"])
    hole = tensor([golden["hole_mask"]]).bool()
    close((gae.generalized_advantage(reward, value, hole) + value)[hole], golden["hole_returns"])


def test_critic_loss():
    golden = GOLDEN["value_loss"]
    ones = torch.ones(1, 1).bool()
    losses = [
        gae.critic_loss(tensor([[v]]), tensor([[old]]), tensor([[r]]), ones, clip=golden["clip"])
        for v, old, r in zip(golden["v"], golden["v_old"], golden["R"], strict=True)
    ]
    close(torch.stack(losses).mean(), golden["loss"])


def test_aggregations():
    golden = GOLDEN["aggregation"]
    per_token = tensor(golden["M"])
    close((plain.over_tokens(MASK) * per_token).sum(), golden["token_mean"])
    close((grpo.over_responses(MASK) * per_token).sum(), golden["response_mean"])
    close((dr_grpo.over_constant_length(MASK, 4) * per_token).sum(), golden["constant_new"])
    close((dr_grpo.over_constant_length(MASK, 4) * per_token).sum() * 3, golden["constant_old"])
