"""After an update vLLM has the new policy, without a restart and without anything left of the old one."""

import pytest
import torch

from tests.engines.models import TOKENIZER, problems
from tests.vllm.models import engine, pytestmark  # noqa: F401
from tests.vllm.test_drawing import drawn
from whet.engines.vllm import weights

CLOSE, FAR = 1e-3, 0.05  # nats: rounding; another policy


@pytest.fixture(scope="module")
def llama():
    return engine()


@pytest.fixture(scope="module")
def stale():
    return engine(publish_every=3)


def gap(of, batch) -> float:
    """The largest difference between what the sampler and the learner say of the tokens."""
    return float((of.score(batch, ["old_logp"])["old_logp"] - batch["sampled_logp"])[batch["mask"]].abs().max())


def update(of) -> None:
    """One AdamW step at a high rate, away from what was drawn."""
    batch = drawn(of)
    learner = of.learner(lambda fields: (fields["logp"] * fields["mask"]).sum(), frozenset())
    learner.gradient(batch)
    learner.step(None, 1.0)


def test_the_next_response_comes_from_the_updated_policy(llama):
    before = drawn(llama)
    assert gap(llama, before) < CLOSE
    update(llama)
    assert gap(llama, before) > FAR
    assert gap(llama, drawn(llama)) < CLOSE


def test_weights_that_an_update_part_sets_are_handed_over_too(llama):
    learner = llama.learner(lambda fields: fields["logp"].sum(), frozenset())
    learner.set_weights([1.1 * x for x in learner.weights()])
    assert gap(llama, drawn(llama)) < CLOSE


def test_a_resumed_state_is_handed_over(llama):
    state = llama.state()
    update(llama)
    drawn(llama)
    llama.load_state(state)
    assert gap(llama, drawn(llama)) < CLOSE


def test_keys_and_values_of_the_old_policy_are_forgotten(llama):
    long = problems("abc123" * 60)  # several blocks of the prefix cache

    def draw():
        return llama.sample(long, [8], max_tokens=4, seed=1)

    assert gap(llama, draw()) < CLOSE
    update(llama)
    assert gap(llama, draw()) < CLOSE
    # and this is what would be seen if they were not
    learner = llama.learner(lambda fields: fields["logp"].sum(), frozenset())
    learner.set_weights([1.2 * x for x in learner.weights()])
    llama.sampler.waiting, llama.sampler.seen = 0, llama.changes
    llama.sampler.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights(llama.model).items())})
    assert gap(llama, draw()) > FAR
    llama.sampler.publish()
    assert gap(llama, draw()) < CLOSE


def test_a_policy_is_as_old_as_was_asked_for(stale):
    gaps = []
    for _ in range(7):
        gaps.append(gap(stale, drawn(stale)))
        update(stale)
    assert [gap < CLOSE for gap in gaps] == [True, False, False, True, False, False, True]
    assert gaps[2] > gaps[1] > FAR
    stale.sampler.publish()
    assert gap(stale, drawn(stale)) < CLOSE


def test_weights_have_the_names_of_a_checkpoint_and_tied_ones_are_given_once():
    tied = engine("qwen2", serve=False)
    names = set(weights(tied.model))
    assert "model.embed_tokens.weight" in names
    assert "lm_head.weight" not in names
    assert "lm_head.weight" in weights(engine("llama", serve=False).model)
    assert len(TOKENIZER) == weights(tied.model)["model.embed_tokens.weight"].shape[0]


def test_adapters_are_handed_over_inside_the_weights_that_they_adapt():
    peft = pytest.importorskip("peft", reason="PEFT is not installed")
    mine = engine()
    peft.get_peft_model(mine.model, peft.LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    assert any("lora_B" in name for name, _ in mine.model.named_parameters())
    assert gap(mine, drawn(mine)) > FAR  # vLLM has the model without adapters
    mine.sampler.publish()
    assert gap(mine, drawn(mine)) < CLOSE


def test_on_a_cpu_vllm_does_not_sleep(llama):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here, on which vLLM sleeps between phases")
    llama.sampler.moves()
    assert not llama.sampler.asleep
    assert gap(llama, drawn(llama)) < CLOSE
