"""vLLM draws from the learner's own distribution, and says with what probability."""

import subprocess
import sys

import pytest
import torch

from tests.engines.models import PROMPTS, direct_logits, problems, responses, told
from tests.vllm.models import FAMILIES, engine, pytestmark  # noqa: F401
from whet.engines.pick import Drawing
from whet.refusal import Refused

TIGHT = {"atol": 2e-4, "rtol": 1e-4}  # two programs that add in another order


@pytest.fixture(scope="module")
def llama():
    return engine()


def drawn(of, each=4, max_tokens=12, seed=1, **options):
    mine = problems()
    return of.sample(mine, [each] * len(mine), max_tokens=max_tokens, seed=seed, **options)


def test_more_prompts_than_vllm_reads_at_once_are_drawn_from(llama):
    """4,096 tokens at once: the prompt in which they end is not read in two parts, which a CPU's seeds do not bear."""
    prompts = [tuple(range(10, 33))] * 200
    found = llama.sampler.draw(prompts, Drawing(1.0, 1.0, False, 2, (), 0), seed=1)
    assert found.length.tolist() == [2] * len(prompts)


def says_the_same(family: str) -> None:
    """The probabilities that vLLM reports are the model's own, and its likeliest responses the local engine's."""
    mine = engine(family)
    batch = drawn(mine, temperature=0.7)
    logp, entropy = [], []
    for prompt, response in zip(batch.prompts, responses(batch), strict=True):
        row = (direct_logits(mine.model, prompt, response) / 0.7).log_softmax(-1)
        logp.append(row.gather(1, torch.tensor(response)[:, None])[:, 0])
        entropy.append(-(row.exp() * row).sum(-1))
    torch.testing.assert_close(batch["sampled_logp"], told(batch, logp), **TIGHT)
    torch.testing.assert_close(batch["sampled_entropy"], told(batch, entropy), **TIGHT)
    greedy = mine.sample(problems(), [1] * len(PROMPTS), greedy=True, max_tokens=20, seed=0)
    local = engine(family, serve=False).sample(problems(), [1] * len(PROMPTS), greedy=True, max_tokens=20, seed=0)
    for name in ("tokens", "mask", "length", "finished", "group", "temperature"):
        assert torch.equal(greedy[name], local[name]), name
    torch.testing.assert_close(greedy["sampled_logp"], local["sampled_logp"], **TIGHT)
    assert greedy.prompts == local.prompts
    assert greedy.texts == local.texts


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "mixtral"])
def test_every_family_says_the_same_with_the_same_probability(family):
    says_the_same(family)


def test_a_model_whose_weights_vllm_does_not_take_over_is_refused():
    # in a process of its own: vLLM sets one up for experts or for none when its first model starts
    code = "from tests.vllm.models import engine; engine('mixtral')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=1200)
    if torch.cuda.is_available():
        assert done.returncode == 0, done.stderr
    else:  # vLLM 0.32 on a CPU keeps the experts' first weights
        assert "nats a token on this MixtralForCausalLM, so what vLLM draws would not come from" in done.stderr


def test_tokens_are_drawn_as_often_as_they_are_probable(llama):
    tries = 5_000
    batch = llama.sample(problems("abc"), [tries], max_tokens=1, temperature=0.8, seed=3)
    probability = (direct_logits(llama.model, batch.prompts[0], [0])[0] / 0.8).softmax(-1)
    expected = probability * tries
    usual = expected > 5
    counts = torch.bincount(batch["tokens"][:, 0], minlength=len(probability))
    chi = ((counts - expected) ** 2 / expected)[usual].sum() / usual.sum()
    assert usual.sum() > 15
    assert 0.3 < chi < 1.9  # 1 ± 0.3 for about 20 degrees of freedom


def test_top_p_keeps_the_likeliest_and_renormalises(llama):
    tries = 1_000
    batch = llama.sample(problems("abc"), [tries], max_tokens=1, top_p=0.5, seed=3)
    probability = direct_logits(llama.model, batch.prompts[0], [0])[0].softmax(-1)
    likely, order = probability.sort(descending=True)
    size = int((likely.cumsum(0) < 0.5).sum()) + 1
    assert size > 1
    kept = torch.zeros_like(probability).index_add(0, order[:size], likely[:size] / likely[:size].sum())
    tokens = batch["tokens"][:, 0]
    assert set(tokens.tolist()) <= set(order[:size].tolist())
    torch.testing.assert_close(batch["sampled_logp"][:, 0], kept[tokens].log(), **TIGHT)
    # vLLM returns truncated probabilities, so the entropy of all of them is the learner's
    entropy = -(probability * probability.log()).sum()
    torch.testing.assert_close(batch["sampled_entropy"][:, 0], entropy.expand(tries), **TIGHT)


def test_the_entropy_of_a_large_vocabulary_is_the_learners(llama, monkeypatch):
    small = drawn(llama)
    monkeypatch.setattr("whet.engines.vllm.SMALL_VOCABULARY", 4)
    large = drawn(llama)
    assert torch.equal(small["tokens"], large["tokens"])
    torch.testing.assert_close(small["sampled_entropy"], large["sampled_entropy"], **TIGHT)


def test_a_seed_gives_the_same_responses_and_another_seed_others(llama):
    one, same, other = drawn(llama, seed=1), drawn(llama, seed=1), drawn(llama, seed=2)
    assert torch.equal(one["tokens"], same["tokens"])
    assert one["tokens"].shape != other["tokens"].shape or not torch.equal(one["tokens"], other["tokens"])
    rows = [row for row, problem in zip(responses(one), one.problems, strict=True) if problem.id == "p0"]
    assert len({tuple(row) for row in rows}) > 1  # four responses to one problem are four draws


def test_a_response_ends_with_an_end_token_or_is_cut_off(llama):
    batch = drawn(llama, each=16, max_tokens=6)
    ends = set(llama.stop)
    for row, finished in zip(responses(batch), batch["finished"].tolist(), strict=True):
        assert not ends & set(row[:-1])
        assert finished == (row[-1] in ends)
        assert finished or len(row) == 6
    assert 0 < batch["finished"].float().mean() < 1
    assert set(batch["tokens"][batch["finished"], batch["length"][batch["finished"]] - 1].tolist()) > {1}


def test_a_temperature_that_vllm_would_raise_is_refused(llama):
    with pytest.raises(Refused, match=r"temperature of 0\.01 or more, not 0\.001"):
        drawn(llama, temperature=0.001)


def test_no_problems_give_no_responses(llama):
    assert len(llama.sample([], [], max_tokens=3, seed=0)) == 0
    assert len(llama.sample(problems("abc"), [0], max_tokens=3, seed=0)) == 0
