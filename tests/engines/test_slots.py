"""Decoding in fixed shapes gives the responses of the other ways, and can be recorded."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.engines.models import FAMILIES, PROMPTS, TOKENIZER, build, engine, problems, responses, sampled
from tests.engines.test_learner import WANTED, ready, surrogate
from whet.engines import recording, replaced, slots
from whet.engines.local import LocalEngine
from whet.models.setup import Setup
from whet.prepare import Run
from whet.refusal import Refused
from whet.train import start_run

FIT = ("llama", "qwen2", "gpt2", "qwen3", "gemma", "phi", "olmo2")
families = pytest.mark.parametrize("family", FIT)


def same(ours, theirs):
    for name in ("tokens", "mask", "length", "finished"):
        assert torch.equal(ours[name], theirs[name]), name
    for name in ("sampled_logp", "sampled_entropy"):
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-5, rtol=1e-5)


def steps_of(mine):
    return [step for desk in mine.sampler.desks.values() for step in desk.steps.values()]


def rehearsed(monkeypatch, counted=None):
    """Steps as on a GPU: tried twice before the first that counts, and never made anew."""

    def record(step):
        if counted is not None:
            counted.append(step.args[-2:])
        for _ in range(recording.REHEARSALS):
            step()
        return step

    monkeypatch.setattr(slots, "recorder", lambda device: record)


@families
def test_slots_write_what_waves_write(family):
    same(sampled(engine(family, graph=True), each=6, max_tokens=30), sampled(engine(family), each=6, max_tokens=30))


@families
def test_slots_write_what_the_plain_cache_writes(family, monkeypatch):
    ours = sampled(engine(family, graph=True), each=3, max_tokens=20)
    monkeypatch.setattr(replaced, "fits", lambda *_: False)
    same(ours, sampled(engine(family), each=3, max_tokens=20))


@pytest.mark.parametrize("how", [{"greedy": True}, {"top_p": 0.6}, {"temperature": 0.5}, {"temperature": 1.7}])
def test_every_way_of_drawing_is_the_same(how):
    mine = engine(graph=True)
    for max_tokens in (20, 1):
        same(sampled(mine, max_tokens=max_tokens, **how), sampled(engine(), max_tokens=max_tokens, **how))


@pytest.mark.parametrize(("rows", "steps"), [(1, 8), (3, 1), (8, 5), (20, 3)])
def test_responses_that_wait_for_a_slot_are_the_same(rows, steps, monkeypatch):
    monkeypatch.setattr(slots, "STEPS", steps)
    rehearsed(monkeypatch)
    mine = engine(max_rows=rows, graph=True)
    mine.token_budget = 12
    same(sampled(mine, each=5, max_tokens=20), sampled(engine(), each=5, max_tokens=20))


@pytest.mark.parametrize("stop", [tuple(range(len(TOKENIZER))), ()])
def test_responses_that_end_at_once_and_those_that_never_end_are_the_same(stop):
    how = slots.Drawing(1.0, 1.0, False, 11, stop, 0)
    prompts = [(5, 6, 7), (8,), (5, 6, 7), (9, 5, 6, 7)]
    ours, theirs = (engine(graph=graph).sampler.draw(prompts, how, 3) for graph in (True, False))
    assert ours.length.tolist() == [1 if stop else 11] * 4
    assert ours.finished.tolist() == theirs.finished.tolist() == [bool(stop)] * 4
    assert torch.equal(ours.tokens, theirs.tokens)
    torch.testing.assert_close(ours.logp, theirs.logp, atol=1e-5, rtol=1e-5)


def test_rehearsals_before_recording_change_nothing(monkeypatch):
    rehearsed(monkeypatch)
    monkeypatch.setattr(slots, "BLOCK", 4)
    mine = engine(graph=True)
    for seed in (1, 2):
        same(sampled(mine, max_tokens=40, seed=seed), sampled(engine(), max_tokens=40, seed=seed))


def test_the_view_grows_with_the_responses_and_closes_up_when_few_are_left(monkeypatch):
    made = []
    rehearsed(monkeypatch, made)
    monkeypatch.setattr(slots, "BLOCK", 4)
    mine = engine(graph=True)
    del made[:]  # the check at the start
    same(sampled(mine, each=16, max_tokens=40), sampled(engine(), each=16, max_tokens=40))
    rows, widths = zip(*made, strict=True)
    assert max(rows) == 128
    assert min(rows) < 16
    assert len(set(widths)) > 3
    assert set(Counter(made).values()) == {1}


def test_a_step_is_recorded_once_for_all_draws(monkeypatch):
    made = []
    rehearsed(monkeypatch, made)
    mine = engine(graph=True)
    sampled(mine, seed=1, max_tokens=30)
    before = list(made)
    sampled(mine, seed=1, max_tokens=30)
    assert made == before
    sampled(mine, seed=1, max_tokens=30, temperature=0.5)
    assert len(made) > len(before)


def test_responses_follow_weights_that_are_changed_in_place(monkeypatch):
    made = []
    rehearsed(monkeypatch, made)
    mine, other = engine(graph=True), engine()
    first = sampled(mine, max_tokens=30)
    known, before = recording.addresses(mine.model), len(made)
    for one in (mine, other):
        learner = one.learner(surrogate, WANTED)
        learner.gradient(ready(other))
        learner.step(0.05, 1.0)
    assert recording.addresses(mine.model) == known
    second = sampled(mine, max_tokens=30)
    assert not torch.equal(first["tokens"], second["tokens"])
    same(second, sampled(other, max_tokens=30))
    assert mine.sampler.known == known
    assert len(made) - before <= 3  # other rows or widths, none anew


@pytest.mark.parametrize("what", ["parameter", "buffer", "model"])
def test_what_was_recorded_is_forgotten_when_weights_move(what, monkeypatch):
    made = []
    rehearsed(monkeypatch, made)
    mine = engine(graph=True)
    sampled(mine)
    before, known = list(made[1:]), mine.sampler.known
    if what == "parameter":
        head = mine.model.lm_head
        head.weight = torch.nn.Parameter(head.weight.detach() * 3)
    elif what == "buffer":
        mine.model.model.rotary_emb.inv_freq = mine.model.model.rotary_emb.inv_freq * 2
    else:
        mine.model = build(seed=7)
    del made[:]
    theirs = engine()
    theirs.model = theirs.sampler.model = mine.model
    same(sampled(mine), sampled(theirs))
    assert mine.sampler.known != known
    assert made
    assert before


def test_more_responses_or_longer_ones_get_more_room():
    mine = engine(graph=True)
    for each, max_tokens in ((1, 5), (4, 5), (4, 50), (1, 5)):
        same(sampled(mine, each=each, max_tokens=max_tokens), sampled(engine(), each=each, max_tokens=max_tokens))
    assert mine.sampler.size == (32, 64)


def test_who_waits_is_told_of_each_response_once():
    mine, told = engine(graph=True, max_rows=4), []
    mine_problems = problems()
    batch = mine.sample(
        mine_problems, [5] * len(PROMPTS), max_tokens=30, seed=1,
        ended=lambda rows, texts: told.extend(zip(rows, texts, strict=True)),
    )  # fmt: skip
    assert sorted(told) == list(enumerate(batch.texts))


def test_a_draw_that_was_no_number_leaves_nothing_behind():
    mine = engine(graph=True)
    kept = {name: x.clone() for name, x in mine.model.state_dict().items()}
    with torch.no_grad():
        mine.model.model.embed_tokens.weight.fill_(torch.nan)
    with pytest.raises(Refused, match="not finite"):
        sampled(mine, max_tokens=30)
    mine.model.load_state_dict(kept)
    same(sampled(mine, max_tokens=12), sampled(engine(), max_tokens=12))


def test_no_response_and_one_prompt_with_many():
    assert len(engine(graph=True).sample([], [], max_tokens=3, seed=0)) == 0
    batch = engine(graph=True, max_rows=8).sample(problems("abc"), [50], max_tokens=20, seed=2)
    assert responses(batch) == responses(engine().sample(problems("abc"), [50], max_tokens=20, seed=2))


# --- other numbers ----------------------------------------------------------------------------------------


@families
def test_in_bfloat16_a_step_is_that_of_waves(family):
    """Weights that are rounded beforehand are those that autocast rounds: the first step is nearly the same."""
    ours = sampled(engine(family, dtype="bfloat16", graph=True), each=6, max_tokens=30)
    theirs = sampled(engine(family, dtype="bfloat16"), each=6, max_tokens=30)
    alike = (ours["tokens"][:, :5] == theirs["tokens"][:, :5]).cumprod(1).bool() & theirs["mask"][:, :5]
    assert alike.float().sum() > 0.5 * theirs["mask"][:, :5].sum()
    gap = (ours["sampled_logp"][:, :5] - theirs["sampled_logp"][:, :5])[alike].abs()
    assert 0 < float(gap.max()) < 0.2  # precision.GAP


def test_rounded_weights_are_those_of_autocast_to_the_bit():
    mine = engine("qwen2", dtype="bfloat16")
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad(), mine.precision():
        view = recording.Rounded(mine.model)
        assert "lm_head.weight" in view.rounded  # tied to an embedding that autocast leaves as it is
        assert torch.equal(view(input_ids=ids).logits, mine.model(input_ids=ids).logits)
    with torch.no_grad(), mine.precision():
        mine.model.model.layers[0].mlp.up_proj.weight.mul_(2)
        stale = view(input_ids=ids).logits
        view.refresh()
        assert not torch.equal(stale, view(input_ids=ids).logits)


# --- what a recording needs -------------------------------------------------------------------------------


class Watched(TorchDispatchMode):
    """Notes what cannot be recorded: what waits for a number, has a size that depends on one, or is of the host."""

    WRONG = ("item", "is_nonzero", "_local_scalar_dense", "nonzero", "_unique2", "masked_select", "lift_fresh")

    def __init__(self):
        super().__init__()
        self.wrong, self.seen = [], 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().removeprefix("aten::").split(".")[0]
        by_mask = name in ("index", "index_put_", "index_put") and any(
            x is not None and x.dtype is torch.bool for x in args[1]
        )
        self.seen += 1
        self.wrong += [name] if name in self.WRONG or by_mask else []
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("wrong", [lambda x: int(x.sum()), lambda x: x[x > 0], lambda x: x + torch.tensor([1.0])])
def test_what_cannot_be_recorded_is_noticed(wrong):
    with torch.inference_mode(), Watched() as watched:
        wrong(torch.ones(3))
    assert watched.wrong


@families
@pytest.mark.parametrize("how", [{}, {"top_p": 0.7, "temperature": 0.5}, {"greedy": True}])
def test_a_step_asks_nothing_of_the_host(family, how, monkeypatch):
    mine = engine(family, graph=True)
    sampled(mine, **how)
    # what transformers leaves out while a graph is recorded: GPT-2's warning that there may be padding
    monkeypatch.setattr("transformers.modeling_utils.is_tracing", lambda *_: True)
    with torch.inference_mode(), Watched() as watched:
        steps_of(mine)[0]()
    assert watched.seen > 50
    assert not watched.wrong


def test_a_step_writes_where_the_one_before_it_wrote():
    mine = engine(graph=True)
    sampled(mine)
    (desk,), place = mine.sampler.desks.values(), mine.sampler.room

    def addresses():
        kept = [*vars(desk.front).values(), desk.page.uniform, desk.page.out.tokens, desk.page.out.logp]
        kept += [desk.page.out.entropy, desk.page.out.length, desk.page.out.finished]
        return [x.data_ptr() for x in (*kept, *(x for parts in place.layers for x in parts))]

    before = addresses()
    sampled(mine, seed=2)
    assert addresses() == before
    assert len(set(before)) == len(before)


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - set(FIT)))
def test_a_model_whose_steps_cannot_be_recorded_is_refused(family):
    with pytest.raises(Refused, match=r"^a step of \w+ cannot be recorded, since .*: leave --graph out.$"):
        engine(family, graph=True)


def test_positions_that_change_with_the_longest_response_are_refused():
    model = build()
    model.config.rope_parameters = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    model = type(model)(model.config)
    with pytest.raises(Refused, match="waits for the host"):
        LocalEngine(model, TOKENIZER, graph=True)


def test_steps_that_say_something_else_are_refused(monkeypatch):
    monkeypatch.setattr(slots, "apart", lambda *_: 0.3)
    with pytest.raises(
        Refused, match=r"recorded steps of this LlamaForCausalLM differ by 0.3 nats .* leave --graph out.$"
    ):
        engine(graph=True)


def test_vllm_records_steps_by_itself(tmp_path):
    run = Run(
        recipe="grpo", task="compose", steps=1, out=str(tmp_path), settings={"engine": "vllm"}, setup=Setup(graph=True)
    )
    with pytest.raises(
        Refused, match=r"--graph is for the engine local, vllm records steps by itself: leave --graph out.$"
    ):
        start_run(run)


# --- with a GPU -------------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="recording needs a GPU")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@families
def test_recorded_steps_are_the_same_steps(family, dtype):
    def on_gpu(**more):
        return LocalEngine(build(family).cuda(), TOKENIZER, lr=1e-2, dtype=dtype, **more)

    mine, plain = on_gpu(graph=True), on_gpu()
    for seed in (1, 2):
        recorded = sampled(mine, each=6, max_tokens=30, seed=seed)
        assert all(type(step.__self__) is torch.cuda.CUDAGraph for step in steps_of(mine))
        mine.sampler.forget()
        mine.sampler.record = lambda step: step
        computed = sampled(mine, each=6, max_tokens=30, seed=seed)
        mine.sampler.forget()
        same(recorded, computed)
        if dtype == "float32":
            same(recorded, sampled(plain, each=6, max_tokens=30, seed=seed))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="recording needs a GPU")
def test_recorded_steps_follow_weights_that_change_in_place():
    mine, plain = (LocalEngine(build().cuda(), TOKENIZER, lr=1e-2, graph=graph) for graph in (True, False))
    sampled(mine, max_tokens=30)
    kept = steps_of(mine)
    for one in (mine, plain):
        with torch.no_grad():
            one.model.lm_head.weight.mul_(1.5)
    same(sampled(mine, max_tokens=30), sampled(plain, max_tokens=30))
    assert set(map(id, kept)) <= set(map(id, steps_of(mine)))
