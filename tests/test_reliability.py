"""A run that cannot be lost: killed, damaged, on a full disk, twice at once, with numbers that are none."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import torch

from tests import killing
from tests.soak import lost, segment, slope
from tests.test_train import metrics, run_cli, short, weights
from whet import checkpoints, guards, prepare, selfcheck, shelf
from whet.engines.local import LocalEngine
from whet.models import tiny
from whet.papers import grpo
from whet.prepare import Run
from whet.recipe import Remembers
from whet.refusal import NotFinite, Refused
from whet.report import reliability
from whet.runs import store as stores
from whet.runs.store import Store
from whet.settings import with_settings
from whet.step import State, step
from whet.tasks import Verdict
from whet.tasks.digits import Digits
from whet.tasks.shelf import make
from whet.train import Trainer, resume_run, start_run
from whet.view import View

ROOT = Path(__file__).parents[1]


@pytest.fixture
def unsure(tmp_path):
    return killing.unsure(tmp_path, steps=6, eval_samples=4, save_every=2)


# --- killed ------------------------------------------------------------------------------------------------


def test_a_run_killed_at_any_moment_becomes_the_run_that_never_was():
    command = [sys.executable, "-m", "tests.killing", "30"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])
    assert sum(row["tried"] for row in rows) == 30
    assert [row["survived"] for row in rows] == [6] * 5, done.stderr


@pytest.mark.parametrize("name", sorted(n for n, r in shelf.every_recipe().items() if any(
    isinstance(part, Remembers) for _, part in r.parts())))  # fmt: skip
def test_every_memory_survives_a_checkpoint(tmp_path, name):
    store = short(tmp_path, recipe=name, steps=2, eval_every=0, eval_samples=1)
    kept = checkpoints.read(store.folder)
    assert kept.raw["memories"] or name.startswith("aepo")


def test_a_run_with_unknown_rewards_goes_on_bit_for_bit_and_counts_on(tmp_path, unsure):
    whole = start_run(replace(unsure, out=str(tmp_path / "whole")))
    start_run(replace(unsure, steps=4))
    again = resume_run("run", unsure.out, steps=6)
    assert metrics(again) == metrics(whole)
    assert torch.equal(weights(again), weights(whole))
    assert again.about["unknown"] == whole.about["unknown"]
    assert sum(whole.about["unknown"].values()) > 0


def test_the_reasons_in_an_early_checkpoint_are_read():
    early = {"ledger": {"reasons": Counter({("judge returned None", 7): 1, ("judge raised", 2): 1})}}
    assert checkpoints.Kept(early, []).ledger().reasons == {"judge returned None": 7, "judge raised": 2}


# --- checkpoints -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("finished")
    return short(root, steps=6, save_every=2, eval_every=0, eval_samples=1, name="run")


@pytest.fixture
def run(finished, tmp_path):
    """A copy of a finished run, to be damaged."""
    return Store(Path(shutil.copytree(finished.folder, tmp_path / "run")))


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize("hurt", [flip, cut, os.remove])
@pytest.mark.parametrize("file", ["run-state.pt", "model.safetensors", "checkpoint.json"])
def test_a_damaged_checkpoint_is_found_and_the_one_before_is_used(run, hurt, file):
    newest = checkpoints.newest(run.folder)
    assert newest.name == "step-000006"
    hurt(newest / file)
    if (hurt, file) != (os.remove, "run-state.pt"):  # a folder without a state is no checkpoint
        assert checkpoints.damage(newest)
    assert checkpoints.newest(run.folder).name == "step-000004"
    assert checkpoints.read(run.folder).raw["step"] == 4


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one_and_says_so(run, finished):
    flip(checkpoints.newest(run.folder) / "run-state.pt")
    again = resume_run(str(run.folder))
    assert "step-000006 is damaged" in again.about["notes"][0]["sentence"]
    assert metrics(again) == metrics(finished)
    assert torch.equal(weights(again), weights(finished))
    assert not checkpoints.damage(run.folder / "checkpoints" / "step-000006")


def test_when_every_checkpoint_is_damaged_one_sentence_says_so(run):
    for place in checkpoints.found(run.folder):
        flip(place / "model.safetensors")
    with pytest.raises(Refused, match="no whole one before it"):
        resume_run(str(run.folder))


def test_the_newest_checkpoints_and_the_best_stay(tmp_path):
    engine, state = _engine(), State(shelf.load("grpo"))
    scores = {1: 0.1, 2: 0.9, 3: 0.2, 5: 0.9}
    for number in range(1, 7):
        so_far = {step: score for step, score in scores.items() if step <= number}
        checkpoints.write(tmp_path, engine, replace(state, step=number), checkpoints.Ledger(), so_far)
    assert [checkpoints.step_of(place) for place in checkpoints.found(tmp_path)] == [2, 5, 6]
    assert checkpoints.best(tmp_path, scores).name == "step-000002"


def test_a_better_evaluation_keeps_its_checkpoint(tmp_path):
    store = short(tmp_path, steps=12, save_every=100, eval_every=2)
    kept = {checkpoints.step_of(place) for place in checkpoints.found(store.folder)}
    scores = {}
    for when, row in store.evaluations():
        scores.setdefault(when, []).append(row.right / row.tries)
    quick = {when: sum(shares) for when, shares in scores.items() if 0 < when < 12}
    assert max(quick, key=lambda when: (quick[when], -when)) in kept


def test_a_checkpoint_of_version_0_1_opens(run, finished):
    shutil.rmtree(run.folder / "checkpoints" / "step-000006")
    place = run.folder / "checkpoints" / "step-000004"
    kept = torch.load(place / checkpoints.STATE, weights_only=False)
    old = {name: kept[name] for name in ("engine", "step", "memories", "history", "settings")}
    torch.save({**old, "spent": 1.5}, place / checkpoints.STATE)
    (place / checkpoints.SUMS).unlink()
    again = resume_run(str(run.folder))
    assert metrics(again) == metrics(finished)


def test_a_checkpoint_of_a_newer_whet_says_what_to_do(run):
    place = checkpoints.newest(run.folder)
    kept = torch.load(place / checkpoints.STATE, weights_only=False)
    torch.save({**kept, "format": 99}, place / checkpoints.STATE)
    sums = json.loads((place / checkpoints.SUMS).read_text())
    sums["sha256"][checkpoints.STATE] = checkpoints._sum(place / checkpoints.STATE)
    (place / checkpoints.SUMS).write_text(json.dumps(sums))
    with pytest.raises(Refused, match="update whet"):
        resume_run(str(run.folder))


class Limit:
    """Inside, no file may grow beyond so many bytes, as on a disk that is full."""

    def __init__(self, size):
        self.size = size

    def __enter__(self):
        import resource
        import signal

        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.before[1]))

    def __exit__(self, *_):
        import resource
        import signal

        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)
        signal.signal(signal.SIGXFSZ, self.ignored)


@pytest.mark.parametrize("room", [0, 3_000, 20_000, 60_000])
def test_a_disk_that_is_full_from_some_moment_on_loses_no_step_before_it(tmp_path, room):
    whole = short(tmp_path / "whole", steps=4, save_every=1, eval_every=0, eval_samples=1)

    class Full(View):
        limit = None

        def stepped(self, step, told, progress):
            if step == 2:
                self.limit = Limit(room)
                self.limit.__enter__()

    view = Full()
    try:
        with pytest.raises(Refused) as refusal:
            start_run(_run(tmp_path / "full", steps=4, save_every=1), view)
    finally:
        view.limit.__exit__()
    assert len(str(refusal.value).splitlines()) == 1
    again = resume_run("run", str(tmp_path / "full"))
    assert metrics(again) == metrics(whole)
    assert torch.equal(weights(again), weights(whole))


def _run(out, **more):
    how = {"task": "digits", "steps": 6, "eval_samples": 1, "eval_every": 0, "out": str(out), "name": "run", **more}
    return Run(**how)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs to become another user")
def test_a_folder_that_cannot_be_written_to_is_one_sentence_and_nothing_is_lost(run):
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    for path in [run.folder, *run.folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    for path in run.folder.parents:
        if str(path).startswith("/tmp/"):
            path.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(Refused, match=r"Permission denied|read-only|readonly"):
            resume_run(str(run.folder), steps=8)
    finally:
        os.seteuid(0)
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before


def test_a_clock_that_goes_backwards_loses_nothing(tmp_path, monkeypatch):
    class Backwards(datetime):
        ticks = 0

        @classmethod
        def now(cls, zone=None):
            cls.ticks += 1
            return datetime(2030, 1, 1, tzinfo=zone) - timedelta(hours=cls.ticks)

    whole = short(tmp_path / "whole", save_every=2, eval_every=0, eval_samples=1)
    monkeypatch.setattr(stores, "datetime", Backwards)
    start_run(_run(tmp_path, steps=4, save_every=2))
    for place in checkpoints.found(tmp_path / "run"):
        os.utime(place, (2e9 - checkpoints.step_of(place), 2e9 - checkpoints.step_of(place)))
    again = resume_run("run", str(tmp_path), steps=6)
    assert metrics(again) == metrics(whole)


def test_a_second_process_on_a_run_is_refused_in_one_sentence(run):
    code = f"""
import sys
from whet.runs.files import alone
with alone(__import__("pathlib").Path({str(run.folder)!r})):
    print("locked", flush=True)
    sys.stdin.read()
"""
    holder = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(Refused, match="written by another process") as refusal:
            resume_run(str(run.folder), steps=8)
        assert len(str(refusal.value).splitlines()) == 1
    finally:
        holder.kill()
        holder.communicate()
    resume_run(str(run.folder), steps=7)  # a killed holder leaves no lock behind


def test_a_run_that_died_while_it_was_made_leaves_its_name_free(tmp_path):
    begun = Store.create(tmp_path / "run", {})
    (begun.folder / "run.json").unlink()
    (begun.folder / ".run.json.17.aside").write_text("{")
    assert start_run(_run(tmp_path, steps=1)).finished
    with pytest.raises(Refused, match="already exists"):
        start_run(_run(tmp_path, steps=1))


# --- another run than it was -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("problems", "0", "problems are no longer the same"),
        ("model", "0", "model that it began from"),
        ("seed", 5, "seed was 5 and is now 0"),
        ("task", "sums", "task was sums"),
    ],
)
def test_what_makes_it_another_run_is_refused_field_by_field(run, field, value, sentence):
    run.tell(made_from={**run.about["made_from"], field: value})
    with pytest.raises(Refused, match=sentence):
        resume_run(str(run.folder), steps=8)


def test_a_changed_part_of_the_recipe_is_refused_by_name(run):
    made_from = run.about["made_from"]
    made_from["recipe"]["loss"] = ["whet.papers.gspo.sequence_clip"]
    run.tell(made_from=made_from)
    with pytest.raises(Refused, match=r"loss whet\.papers\.gspo\.sequence_clip is now loss"):
        resume_run(str(run.folder), steps=8)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [("torch", "1.0", "it was torch 1.0"), ("threads", 77, "77 threads"), ("machine", "a PDP-11", "a PDP-11")],
)
def test_another_machine_is_accepted_with_a_sentence_that_stays(run, field, value, sentence):
    run.tell(made_from={**run.about["made_from"], field: value})
    again = resume_run(str(run.folder), steps=7)
    assert any(sentence in note["sentence"] for note in again.about["notes"])
    assert again.finished


def test_a_setting_changed_on_resume_holds_and_is_told(run):
    again = resume_run(str(run.folder), steps=8, typed={"update.lr": "0"})
    assert "update.lr was None and is now 0" in again.about["notes"][0]["sentence"]
    before = checkpoints.step_of(checkpoints.newest(run.folder))
    assert before == 8
    assert torch.equal(weights(again), weights(run))


# --- unknown rewards ---------------------------------------------------------------------------------------


def test_the_bound_on_unknown_rewards_and_its_window_can_be_moved(unsure):
    strict = {"guard.unknown": "0.01", "guard.window": "2"}
    store = start_run(replace(unsure, settings={**unsure.settings, **strict}))
    status, sentence = store.state
    assert (status, store.steps) == ("failed", 2)
    assert "and the bound is 1%: repair the judge, or move the bound with --guard.unknown." in sentence
    told = store.about["unknown"]
    again = resume_run("run", unsure.out, typed={"guard.unknown": "0.1", "guard.window": "3"})
    assert again.state == ("finished", "Finished after 6 updates.")
    assert again.about["unknown"]["judge returned None"] > told["judge returned None"]
    assert again.about["run"]["settings"]["guard.unknown"] == "0.1"


@pytest.mark.parametrize(
    ("name", "value"),
    [("unknown", "1.01"), ("unknown", "-0.1"), ("unknown", "nan"), ("unknown", "none"), ("unknown", "true"),
     ("unknown", "5%"), ("window", "0"), ("window", "2.5"), ("window", "-3"), ("window", "false"), ("memory", "1"),
     ("spike", "-1"), ("spike", "nan"), ("spike", "true"), ("check", "0.5"), ("check", "none")],
)  # fmt: skip
def test_a_guard_that_makes_no_sense_is_refused_in_one_sentence(name, value):
    with pytest.raises(Refused) as refusal:
        guards.Guard.of({f"guard.{name}": value})
    assert f"guard.{name} is a" in str(refusal.value) or f"guard.{name} is true or false" in str(refusal.value)
    assert "\n" not in str(refusal.value)


# --- numbers that go wrong ---------------------------------------------------------------------------------


def _engine():
    model, tokenizer = tiny.micro(0)
    return LocalEngine(model, tokenizer, lr=1e-2)


def nan_reward(score, step: int, first: int = 3, last: int = 3):
    return score / 0 * 0 if first <= step + 1 <= last else score


def nan_loss(logp, old_logp, advantage):
    return logp * advantage * float("nan")


BAD = {
    "reward": grpo.recipe.with_(name="bad", reward=(nan_reward,)),
    "loss": grpo.recipe.with_(name="bad", loss=nan_loss),
}


class Nan(Digits):
    """A judge inside the process that returns a number which is none."""

    def judge(self, problems, texts):
        return [Verdict(float("nan")) for _ in texts]


@pytest.mark.parametrize("stage", ["sampling", "judging", "reward", "loss", "the forward pass", "the gradient"])
def test_a_number_that_is_none_ends_the_step_and_names_its_stage(stage, monkeypatch):
    engine, task = _engine(), Nan() if stage == "judging" else Digits()
    recipe = BAD.get(stage, grpo.recipe)
    state = replace(State(recipe), step=2)
    before = [x.detach().clone() for x in engine.model.parameters()]
    if stage == "sampling":
        with torch.no_grad():
            engine.model.get_input_embeddings().weight[5] = float("nan")
        before = None
    if stage == "the forward pass":
        engine.model.base_model.register_forward_hook(_nan_when_training)
    if stage == "the gradient":
        next(engine.model.parameters()).register_hook(lambda x: x * float("inf"))
    with pytest.raises(NotFinite) as found:
        step(guards.Watch(engine, recipe), task, task.train(), state, 0)
    assert found.value.stage == stage
    if before:
        assert all(torch.equal(x, y) for x, y in zip(before, engine.model.parameters(), strict=True))
        assert not engine.optimizer.state


def _nan_when_training(backbone, inputs, found):
    if torch.is_grad_enabled():
        found.last_hidden_state = found.last_hidden_state * float("nan")
    return found


def test_a_bad_step_is_not_taken_and_its_batch_can_be_replayed(tmp_path):
    store = _trained(tmp_path, grpo.recipe.with_(name="bad", reward=(nan_reward,)))
    assert store.metrics("not_taken")["not_taken"][0].tolist() == [3]
    assert store.finished
    note = store.about["notes"][0]
    assert "stage reward" in note["sentence"]
    assert "nan_reward" in note["sentence"]
    place = store.folder / "trouble" / "step-000003.pt"
    assert guards.replay(place, _engine(), grpo.recipe.with_(name="bad", reward=(nan_reward,))) == "reward"


def _trained(out, recipe, view=None, **more):
    """A whole run of a recipe that is on no shelf."""
    run = _run(out, save_every=2, **more)
    folder = Path(run.out) / run.name
    store = Store.create(folder, {"run": {}, "steps": run.steps})
    trainer = Trainer(run, recipe, Digits(), _engine(), store, view or View())
    store.status(*trainer.go())
    return store


def test_several_optimiser_steps_are_all_undone_when_a_later_one_goes_wrong():
    engine, calls = _engine(), []
    recipe = with_settings(shelf.load("grpo"), {"update.minibatches": 4})
    inner = engine.step

    def third_fails(lr, clip_norm):
        calls.append(1)
        if len(calls) == 3:
            next(engine.model.parameters()).grad.fill_(float("nan"))
        return inner(lr, clip_norm)

    engine.step = third_fails
    before = [x.detach().clone() for x in engine.model.parameters()]
    watch = guards.Watch(engine, recipe)
    with pytest.raises(NotFinite):
        step(watch, Digits(), Digits().train(), State(recipe), 0)
    assert not all(torch.equal(x, y) for x, y in zip(before, engine.model.parameters(), strict=True))
    watch.put_back()
    assert all(torch.equal(x, y) for x, y in zip(before, engine.model.parameters(), strict=True))
    assert not engine.optimizer.state


def test_three_bad_steps_in_a_row_stop_a_run_that_can_go_on(tmp_path):
    recipe = grpo.recipe.with_(name="bad", reward=(nan_reward,))
    recipe = with_settings(recipe, {"reward.nan_reward.last": 99})
    store = _trained(tmp_path, recipe, steps=20)
    status, sentence = store.state
    assert status == "failed"
    assert "the last 3 were not taken" in sentence
    assert "--resume" in sentence
    assert store.steps == 5
    assert checkpoints.read(store.folder).raw["step"] == 5
    assert checkpoints.read(store.folder).ledger().lost == 0


def test_weights_that_are_no_numbers_are_never_written_over_good_ones(run):
    engine = _engine()
    with torch.no_grad():
        next(engine.model.parameters())[0, 0] = float("inf")
    with pytest.raises(NotFinite, match="no checkpoint was written"):
        checkpoints.write(run.folder, engine, State(shelf.load("grpo"), step=9), checkpoints.Ledger())
    assert checkpoints.newest(run.folder).name == "step-000006"


def test_a_spike_is_left_out_and_counted_and_off_by_default(tmp_path):
    engine, recipe = _engine(), grpo.recipe
    for spike, left_out in ((0.0, 0), (5.0, 1)):
        watch = guards.Watch(engine, recipe, spike, norms=[1e-9] * 20)
        before = torch.cat([x.detach().flatten() for x in engine.model.parameters()])
        step(watch, Digits(), Digits().train(), State(recipe), 0)
        after = torch.cat([x.detach().flatten() for x in engine.model.parameters()])
        assert watch.spikes == left_out
        assert torch.equal(before, after) == bool(left_out)
    store = short(tmp_path, steps=3, settings={"guard.spike": "1e9"})
    assert store.metrics("spikes")["spikes"][1].tolist() == [0, 0, 0]
    assert not short(tmp_path / "off", steps=1).metrics("spikes")


# --- the self-check ----------------------------------------------------------------------------------------


def failing(engine, task=None, recipe="grpo"):
    return {f.name: f for f in selfcheck.findings(engine, task or Digits(), shelf.load(recipe)) if not f.ok}


@pytest.mark.parametrize("name", sorted(shelf.every_recipe()))
def test_the_self_check_passes_for_every_recipe_on_a_sound_model(name):
    assert not failing(_engine(), recipe=name)


def test_the_self_check_passes_where_a_selector_draws_tokens_at_random():
    base = LocalEngine.load(prepare.BASE)  # on digits clip_cov has too few tokens to choose from
    assert not failing(base, task=make("compose"), recipe="clip_cov")


def test_the_self_check_leaves_the_engine_and_the_generators_as_they_were():
    engine = _engine()
    before, state = torch.get_rng_state(), engine.state()
    assert not failing(engine)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(x, state["weights"][name]) for name, x in engine.state()["weights"].items())
    assert not engine.state()["optimizer"]
    assert all(x.grad is None for x in engine.model.parameters())


def test_noise_in_the_forward_pass_is_found():
    engine = _engine()
    engine.model.lm_head.register_forward_hook(lambda _, i, out: out + 0.1 * torch.randn_like(out))
    found = failing(engine)
    assert {"sampler and learner agree", "ratio is one", "gradient repeats"} <= set(found)


def test_a_sampler_that_reports_other_numbers_is_found():
    engine = _engine()
    draw = engine.sampler.draw

    def off(*how):
        drawn = draw(*how)
        return replace(drawn, logp=drawn.logp - 0.01)

    engine.sampler.draw = off
    assert set(failing(engine)) == {"sampler and learner agree"}
    engine.sampler.dtype = torch.bfloat16  # asked for: then so much is its rounding
    assert not failing(engine)


def test_a_learner_that_reads_otherwise_than_the_scorer_is_found():
    engine = _engine()
    learner = engine.learner

    def colder(*how):
        made = learner(*how)
        gradient = made.gradient
        made.gradient = lambda batch, scale=1.0: gradient(batch.having(temperature=batch["temperature"] * 0.9), scale)
        return made

    engine.learner = colder
    assert set(failing(engine)) == {"ratio is one"}


def test_a_gradient_that_does_not_repeat_is_found():
    engine = _engine()
    learner, times = engine.learner, []

    def drifting(*how):
        made = learner(*how)
        gradients = made.gradients
        made.gradients = lambda: [times.append(1) or x * (1 + 1e-7 * len(times)) for x in gradients()]
        return made

    engine.learner = drifting
    assert set(failing(engine)) == {"gradient repeats"}


def test_another_reference_is_found():
    engine = _engine()
    engine._start = tiny.micro(1)[0].state_dict()
    assert set(failing(engine)) == {"kl is zero"}


def test_a_model_that_sees_padding_is_found():
    engine = _engine()

    def by_width(backbone, words, how, found):
        found.last_hidden_state = found.last_hidden_state * how["input_ids"].shape[1]
        return found

    engine.model.base_model.register_forward_hook(by_width, with_kwargs=True)
    assert "padding changes nothing" in failing(engine)


class AlwaysRight(Digits):
    def judge(self, problems, texts):
        return [Verdict(1.0, True) for _ in texts]


class RightIfAnything(Digits):
    def judge(self, problems, texts):
        return [Verdict(float(bool(text)), bool(text)) for text in texts]


class AlwaysWrong(Digits):
    def judge(self, problems, texts):
        return [Verdict(0.0) for _ in texts]


@pytest.mark.parametrize(("task", "what"), [
    (AlwaysRight(), "empty response"), (AlwaysWrong(), "no reward"), (RightIfAnything(), "another problem"),
])  # fmt: skip
def test_a_judge_that_cannot_tell_right_from_wrong_is_found(task, what):
    assert what in failing(_engine(), task)["judge tells right from wrong"].sentence


def test_a_loss_that_is_no_number_is_found():
    engine, recipe = _engine(), grpo.recipe.with_(name="bad", loss=nan_loss)
    found = {f.name for f in selfcheck.findings(engine, Digits(), recipe) if not f.ok}
    assert "loss is finite" in found


def test_a_failing_self_check_refuses_the_run_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(Digits, "judge", AlwaysWrong.judge)
    with pytest.raises(Refused, match=r"Self-check, judge tells right from wrong: .* no reward: repair the judge"):
        short(tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    assert short(tmp_path / "runs", steps=1, settings={"guard.check": "false"}).finished


def test_whet_check_runs_it_alone(tmp_path):
    done = run_cli(tmp_path, "check", "--task", "digits")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("passed") >= 7
    assert list(tmp_path.iterdir()) in ([], [tmp_path / "cache"])


# --- the long run and the table ----------------------------------------------------------------------------


def test_a_leak_shows_in_the_slope_and_noise_does_not():
    hours = [i / 1000 for i in range(1000)]
    noise = torch.randn(1000, generator=torch.Generator().manual_seed(0)).tolist()
    leak = slope(hours, [100 + 5 * h + n for h, n in zip(hours, noise, strict=True)], "MiB")
    flat = slope(hours, [100 + n for n in noise], "MiB")
    assert 0 < leak["low"] < 5 < leak["high"]
    assert flat["low"] < 0 < flat["high"]


def test_what_a_long_run_lost_is_counted(run):
    assert lost(run, 256)["lost_metrics"] == lost(run, 256)["lost_responses"] == 0
    with run._connected() as connection:
        connection.execute("DELETE FROM metrics WHERE step = 3 AND name IN ('loss', 'reward')")
        connection.execute("UPDATE metrics SET value = 250 WHERE step = 2 AND name = 'drawn'")
    assert lost(run, 256)["lost_metrics"] == 2
    assert lost(run, 256)["lost_responses"] == 6


def test_what_is_noted_about_a_process_of_the_long_run_is_on_the_page(tmp_path, run):
    file = tmp_path / "segment-000.txt"
    file.write_text("\n".join(f"{i} {i / 100} 500 50 0.5 0.6 300" for i in range(1, 41)))
    assert "note" not in segment(file)
    file.with_suffix(".note").write_text("It was measured beside another.\n")
    long = {**lost(run, 256), "reasons": {}, "segments": [segment(file)]}
    (tmp_path / "soak.json").write_text(json.dumps({"hours": 0.4, "runs": [long]}))
    assert "1 … 40: It was measured beside another." in reliability.page(tmp_path)


def test_the_table_of_reliability_is_fresh():
    assert reliability.main(["--check"]) == 0
