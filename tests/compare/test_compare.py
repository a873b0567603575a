"""Comparisons from end to end: paired, reused, killed and started again, and refused where they would mislead."""

import inspect
import io
import json
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from rich.console import Console

from tests.compare.conftest import silent
from whet.compare import maths
from whet.compare.measure import measure
from whet.compare.plan import Budget, Plan, seeds_of
from whet.compare.result import across, gathered, save
from whet.compare.work import carry_out
from whet.refusal import Refused
from whet.runs.store import Store

COMMAND = [sys.executable, "-c", "from whet.cli import main; main()"]


def whet(*words, **more):
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, **more)


def test_every_recipe_sees_the_same_problems_in_the_same_order_at_the_same_seed(plan, runs):
    for one, other in zip(*runs.values(), strict=True):
        assert one.about["seed"] == other.about["seed"]
        first, second = ([row["problem"] for row in store.samples(step=1, split="train")] for store in (one, other))
        assert first == second
        assert [e.problem for _, e in one.evaluations()] == [e.problem for _, e in other.evaluations()]
        start = [[e for s, e in store.evaluations() if s == 0] for store in (one, other)]
        assert start[0] == start[1]


def test_what_is_there_is_not_run_again(plan):
    began = {job.folder: (job.folder / "run.json").stat().st_mtime_ns for job in plan.jobs()}
    carry_out(replace(plan, seeds=(0, 1)).jobs(), silent())
    assert {folder: (folder / "run.json").stat().st_mtime_ns for folder in began} == began


def test_a_run_that_cannot_begin_is_named_and_keeps_no_other_waiting(plan, tmp_path):
    first, second = replace(plan, seeds=(0,), budget=Budget(steps=1), runs=str(tmp_path)).jobs()
    lost = replace(first, run=replace(first.run, model=str(tmp_path / "none")))
    said = silent()
    with pytest.raises(Refused, match=r"1 of 2 runs left nothing \(grpo on digits\).*the same command goes on"):
        carry_out([lost, second], said, workers=1)
    assert "grpo on digits, seed 0: there is no directory" in said.file.getvalue()
    assert second.store.state[0] == "finished"


def test_settings_for_all_recipes_follow_the_options(tmp_path):
    from typer.testing import CliRunner

    from whet.cli import app

    words = ["compare", "grpo", "rloo", "--task", "digits", "--seeds", "1", "--budget", "steps=1", "--samples", "2"]
    words += ["--runs", str(tmp_path / "r"), "--out", str(tmp_path / "o"), "--update.minibatches=2"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    runs = [Store(folder).about["run"]["settings"] for folder in (tmp_path / "r").iterdir() if folder.is_dir()]
    assert runs == [{"update.minibatches": "2"}] * 2


def test_the_key_knows_settings_budget_and_code_and_ignores_comments(plan, tmp_path, monkeypatch):
    keys = {plan.job("grpo", "digits", 0).run.name}
    keys |= {plan.job("grpo@loss.high=0.3", "digits", 0).run.name, plan.job("grpo", "digits", 1).run.name}
    keys |= {replace(plan, budget=Budget(steps=7)).job("grpo", "digits", 0).run.name}
    keys |= {replace(plan, settings={"advantage.epsilon": "1e-4"}).job("grpo", "digits", 0).run.name}
    assert len(keys) == 5
    file = tmp_path / "paper.py"
    codes = []
    for body in ("x = 1\n", "# why\nx  =  1\n", '"""What."""\nx = 1\nrecipe = base.with_(new="a")\n', "x = 2\n"):
        file.write_text(body)
        maths.of_file.cache_clear()
        codes.append(maths.of_file(file))
    assert codes[0] == codes[1] == codes[2] != codes[3]


def test_a_paper_that_a_recipe_imports_is_part_of_its_key():
    loss = inspect.unwrap(maths.loaded("gspo").loss)
    files = {path.stem for path in maths._files(loss.__globals__)}
    assert {"gspo", "grpo", "reinforce"} <= files
    assert "dapo" not in files


def test_a_token_budget_counts_every_response_that_was_drawn(tmp_path):
    plan = Plan(("dapo",), ("digits",), (0,), Budget.of("tokens=4000"), samples=4, runs=str(tmp_path))
    carry_out(plan.checked().jobs(), silent())
    metrics = plan.jobs()[0].store.metrics()
    spent = metrics["drawn_tokens"][1].cumsum()
    assert spent[-1] >= 4000 > (spent[-2] if len(spent) > 1 else 0)
    assert metrics["drawn_tokens"][1].sum() > metrics["sampled_tokens"][1].sum()  # groups without signal are drawn too


def test_killed_at_a_random_moment_and_started_again_it_gives_the_same_table(plan, runs, tmp_path):
    words = ["compare", *plan.arms, "--task", "digits", "--seeds", "3", "--budget", "steps=6", "--samples", "8",
             "--workers", "2", "--runs", str(tmp_path / "runs"), "--out",
             str(tmp_path / "out"), "--name", "x"]  # fmt: skip
    process = subprocess.Popen([*COMMAND, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while time.monotonic() < until and not list((tmp_path / "runs").glob("*/run.sqlite")):
        time.sleep(0.05)
    time.sleep(random.uniform(0, 3))
    process.send_signal(signal.SIGKILL)
    process.wait()
    until = time.monotonic() + 30  # on a busy machine the runs need a moment to notice
    while any(Store(f.parent).state[0] == "running" for f in (tmp_path / "runs").glob("*/run.json")):
        assert time.monotonic() < until, "a run went on without its comparison"
        time.sleep(0.2)
    done = {f.parent.name for f in (tmp_path / "runs").glob("*/run.json") if json.loads(f.read_text())["ended"]}
    again = whet(*words)
    assert again.returncode == 0, again.stderr
    assert f"{len(done)} of 6 runs are there already." in again.stdout or not done
    table = json.loads((tmp_path / "out/x/comparison.json").read_text())["tasks"][0]
    whole = json.loads(json.dumps(gathered(runs).values))
    for name in ("pass@1", "entropy", "kl", "speed"):
        assert table["values"][name] == whole[name]


def test_two_comparisons_at_once_in_one_folder_are_refused(plan):
    import fcntl

    with open(f"{plan.runs}/.compare.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Refused, match="Another comparison makes runs"):
            carry_out(plan.jobs(), silent())


def test_runs_of_different_tasks_bases_or_budgets_are_refused(plan, runs, tmp_path):
    import shutil

    first = runs["grpo"][0]
    for change, word in (({"task": "compose"}, "task"), ({"base": "another"}, "base"), ({"steps": 7}, "budget")):
        folder = tmp_path / word
        shutil.copytree(first.folder, folder)
        other = Store(folder)
        about = other.about
        if word == "budget":
            other.tell(run={**about["run"], "steps": 7})
        else:
            other.tell(**change)
        with pytest.raises(Refused, match=f"differ in their {word}"):
            gathered({"grpo": [first], "other": [other]})


def test_one_seed_has_no_interval_and_the_report_says_so(runs):
    from whet.report.comparison import headline, markdown

    result = gathered({arm: stores[:1] for arm, stores in runs.items()})
    assert all(one["low"] is None for one in result.means["pass@1"].values())
    assert "one seed" in headline(result)
    assert "one seed: no interval" in markdown([result], "x")


def test_a_run_that_fails_is_counted_told_and_left_out(plan, tmp_path):
    bad = replace(plan, arms=("grpo", "grpo@update.lr=1e30"), seeds=(0,), runs=str(tmp_path))
    carry_out(bad.jobs(), silent())
    by_arm = {arm: [job.store for job in bad.jobs() if job.arm == arm] for arm in bad.arms}
    result = gathered(by_arm)
    assert result.recipes[1]["failed"]
    assert "grpo@update.lr=1e30" not in result.values["pass@1"]


def test_a_finished_run_is_read_once_whatever_is_asked_of_it_and_a_terminal_sees_how_far(runs, monkeypatch):
    read = []
    for name in ("evaluations", "metrics"):
        real = getattr(Store, name)
        monkeypatch.setattr(Store, name, lambda self, *a, n=name, f=real: read.append((self.name, n)) or f(self, *a))
    terminal = Console(file=io.StringIO(), force_terminal=True)
    once = gathered(runs, out=terminal)
    assert sorted(read) == sorted(
        (s.name, n) for stores in runs.values() for s in stores for n in ("evaluations", "metrics")
    )
    for what in ("reading runs", "comparing"):
        assert what in terminal.file.getvalue()
    for name in ("pass@1", "entropy", "kl", "speed"):
        assert once.values[name] == {
            label: {s.about["seed"]: measure(s, name) for s in stores} for label, stores in runs.items()
        }


def test_results_can_be_saved_and_two_tasks_have_a_middle(runs, tmp_path):
    one = gathered(runs)
    save([one, replace(one, task="again")], tmp_path / "c.json")
    kept = json.loads((tmp_path / "c.json").read_text())
    assert set(kept["across"]["middle"]) == set(runs)
    assert across([one]) == {}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["grpo", "grpoo"], "There is no recipe 'grpoo'"),
        (["grpo", "grpo"], "named twice"),
        (["grpo", "rloo", "--seeds", "0"], "no seed at all"),
        (["grpo", "rloo", "--budget", "tokens=x"], "is no budget"),
        (["grpo", "rloo", "--budget", "tokens=inf"], "is no budget"),
        (["grpo", "rloo", "--budget", "tokens=nan"], "is no budget"),
        (["grpo", "rloo", "--budget", "steps=2.7"], "is no budget"),
        (["grpo", "rloo", "--seeds", "1,2,1"], "has seed 1 twice"),
        (["grpo", "rloo", "--delta", "nan"], "--delta nan: "),
        (["grpo", "rloo", "--delta=-0.1"], "--delta -0.1: "),
        (["grpo", "rloo", "--measure", "pass@one"], "write pass@1"),
        (["grpo", "rloo", "--measure", "pass@128"], "raise --samples"),
        (["grpo", "rloo", "--measure", "pass@1:exam"], "There is no split 'exam'"),
        (["grpo", "rloo", "--against", "ppo"], "it is not among grpo, rloo"),
        (["grpo", "rloo", "--measure", "entropi"], "nearest is 'entropy'"),
        (["grpo@loss.hihg=1", "rloo"], "has no setting 'loss.hihg'"),
        (["grpo@loss", "rloo"], "recipe@address=value"),
        (["grpo", "rloo", "--task", "dgits"], "There is no task 'dgits'"),
    ],
)  # fmt: skip
def test_wrong_input_is_one_sentence_before_anything_runs(tmp_path, words, says):
    from typer.testing import CliRunner

    from whet.cli import app

    words = ["compare", *words, "--runs", str(tmp_path / "r"), "--out", str(tmp_path / "o")]
    words += [] if "--task" in words else ["--task", "digits"]
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, Refused), done.output
    assert says in str(done.exception)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["razor", "--rates", ""], "--rates '': name at least one"),
        (["razor", "--rates", "inf"], "a learning rate is a finite number above 0"),
        (["verify", "--study", "."], "is not the sweep.json of a study"),
        (["calibrate", "grpo", "--factor", "1"], "--factor 1: nothing would be planted"),
        (["calibrate", "grpo", "--factor", "0"], "--factor 0: "),
        (["calibrate", "grpo", "--measure", "pass@128"], "raise --samples"),
        (["calibrate", "grpo", "--delta", "inf"], "--delta inf: "),
        (["study", "grpo", "--rates", "nan"], "a learning rate is a finite number above 0"),
        (["study", "grpo", "--rates", "1e-3", "--against", "ppo"], "it is not among grpo"),
        (["study", "grpo", "--rates", "1e-3", "--measure", "pass@128"], "raise --samples"),
        (["study", "grpo", "--rates", "1e-3", "--samples", "64", "--sweep-samples", "8", "--measure", "pass@32"],
         "there are 8"),
        (["laws", "last", "--beta", "0"], "above 0"),
    ],
)  # fmt: skip
def test_wrong_input_of_the_other_commands_is_one_sentence_before_anything_runs(tmp_path, monkeypatch, words, says):
    from typer.testing import CliRunner

    from whet.cli import app

    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, Refused), done.output
    assert says in str(done.exception)
    assert list(tmp_path.iterdir()) == []


def test_runs_that_do_not_compare_are_one_sentence_and_nothing_is_written(runs, tmp_path):
    import shutil

    from typer.testing import CliRunner

    from whet.cli import app

    first, second = (runs["grpo"][0].folder, runs["w_reinforce"][0].folder)
    going = tmp_path / "going"
    shutil.copytree(second, going)
    Store(going).status("running", "Step 3.")
    for words, says in (
        ([going], "going is still running: wait until it is over, or leave it out"),
        ([second.parent / "deleted"], "deleted is not a run, and"),
        ([second, "--seeds", "3"], "--seeds is for runs that are made"),
        ([second, "--update.lr=1e-3"], "update.lr is for runs that are made"),
    ):
        done = CliRunner().invoke(app, ["compare", str(first), *map(str, words), "--out", str(tmp_path / "o")])
        assert isinstance(done.exception, Refused), done.output
        assert says in str(done.exception)
        assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(("recipe", "says"), [("srft", "learns from worked solutions"), ("fspo", "does not say")])
def test_a_recipe_that_needs_what_the_task_lacks_is_refused_before_anything_runs(tmp_path, recipe, says):
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": f"{i}", "answer": f"{i}"}) for i in range(10)))
    with pytest.raises(Refused, match=says):
        Plan((recipe, "grpo"), (str(file),), (0,), runs=str(tmp_path / "r")).checked()


def test_seeds_and_settings_are_read_as_they_are_typed():
    assert seeds_of("10-12") == (10, 11, 12)
    assert seeds_of("2", 1000) == (1000, 1001)
    assert maths.parted("a.py:b@x.y=1") == ("a.py:b", {"x.y": "1"})
