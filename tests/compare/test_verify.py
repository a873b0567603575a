"""Findings, calibration, doctor, study and the laws: what they say follows from what the runs did."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tests.compare.conftest import silent
from tests.report.conftest import synthetic
from whet import shelf
from whet.compare import doctor, laws, laws_told, planted, razor, razor_runs, stats, study, verify
from whet.compare.measure import meaning, measure
from whet.compare.plan import Budget, Plan
from whet.compare.result import gathered
from whet.compare.work import carry_out
from whet.recipe import Finding
from whet.refusal import Refused
from whet.report.catalogue import verdicts
from whet.runs.store import Evaluated, Store

RECIPES = shelf.every_recipe()
STATED = [(name, one) for name, recipe in RECIPES.items() for one in recipe.findings]


def test_at_least_35_recipes_state_a_finding():
    assert len({name for name, _ in STATED}) >= 35


@pytest.mark.parametrize(("name", "finding"), STATED, ids=[f"{n}-{f.measure}-{f.versus}" for n, f in STATED])
def test_a_finding_can_be_run_and_names_its_source(name, finding):
    meaning(finding.measure)
    assert finding.versus == "start" or finding.versus in RECIPES
    assert finding.versus != name
    assert finding.direction in ("up", "down", "same")
    assert finding.figure
    assert finding.where


def pair(verdict, difference):
    return stats.Pair("a", "b", 5, difference, 0, 0, 0.95, None, None, None, None, verdict, "")


@pytest.mark.parametrize(
    ("direction", "verdict", "difference", "says"),
    [
        ("up", "better", 0.1, "holds"), ("up", "worse", -0.1, "opposite"), ("down", "worse", -0.1, "holds"),
        ("down", "better", 0.1, "opposite"), ("same", "tie", 0.0, "holds"), ("up", "tie", 0.0, "no difference"),
        ("same", "better", 0.1, "opposite"), ("up", "open", 0.1, "cannot tell"), ("same", "open", 0.0, "cannot tell"),
    ],
)  # fmt: skip
def test_an_answer_follows_from_interval_and_direction(direction, verdict, difference, says):
    assert verify._verdict(pair(verdict, difference), direction) == says


def test_a_finding_is_answered_stored_and_read_by_the_catalogue(plan, tmp_path):
    for finding in (
        Finding("speed", "w_reinforce", "up", "none", "here"),
        Finding("correct", "start", "up", "none", "here"),
    ):
        case = verify.Case("grpo", finding, "digits")
        jobs = verify.plan_of(case, plan).jobs()
        assert all(job.store for job in jobs)  # the runs of the comparison are used again
        (one,) = verify.verify([case], plan, None, silent())
        assert one["verdict"] in verify.ANSWERS
        assert len(one["values"]["grpo"]) == len(one["values"][finding.versus]) == 3
        verify.save(one, tmp_path)
        assert f": {one['verdict']}; " in verify.sentence(one)
    assert len(list(tmp_path.glob("finding-grpo-*.json"))) == 2
    said = verdicts(tmp_path)["grpo"]
    assert "speed, digits: " in said
    assert one["verdict"] in said


def test_findings_are_run_at_the_rates_of_a_study_and_share_its_runs(tmp_path):
    small = Plan(("opo", "grpo"), ("digits",), (0, 1), Budget(steps=3), samples=4, runs=str(tmp_path / "runs"))
    chosen = study.sweep(small, [1e-3, 1e-2], (1000,), "speed", silent())
    carry_out(chosen.plans[0].jobs(), silent())
    study.write_sweep(chosen, tmp_path / "sweep.json")
    taken = study.Taken.read(tmp_path / "sweep.json", small.runs)
    assert (taken.plan.seeds, taken.plan.budget, taken.plan.samples) == ((0, 1), Budget(steps=3), 4)
    cases = verify.wanted("", "", (), taken)
    assert [(case.recipe, case.task) for case in cases] == [("grpo", "digits")] + [("opo", "digits")] * 2
    said = Console(file=io.StringIO())
    answers = list(verify.verify(cases, taken.plan, None, said, taken=taken))
    assert "4 of 4 runs are there already." in said.file.getvalue()
    rate = float(taken.arm("opo", "digits").partition("=")[2])
    assert answers[1]["rates"]["opo"] == {"rate": rate, "from": "the study"}
    assert f"learning rates by the study: opo {rate:g}, grpo " in verify.sentence(answers[1])
    told = json.loads((tmp_path / "sweep.json").read_text())
    (tmp_path / "by-hand.json").write_text(json.dumps({**told, "by_hand": {"digits": ["opo"]}}))
    by_hand = study.Taken.read(tmp_path / "by-hand.json", small.runs)
    rates = list(verify.verify(cases, taken.plan, None, silent(), taken=by_hand))[1]["rates"]
    assert (rates["opo"]["from"], rates["grpo"]["from"]) == ("hand, after the study", "the study")


def test_a_finding_that_the_samples_do_not_allow_is_left_out_with_its_reason(plan):
    findings = [
        Finding("pass@64", "start", "up", "none", "here"),
        Finding("speed", "w_reinforce", "up", "none", "here"),
    ]
    said = Console(file=io.StringIO())
    cases = [verify.Case("grpo", one, "digits") for one in findings]
    assert [one["measure"] for one in verify.verify(cases, plan, None, said)] == ["speed"]
    assert "Left out: grpo, pass@64: pass@64 needs 64 responses" in " ".join(said.file.getvalue().split())
    with pytest.raises(Refused, match="needs 64 responses"):
        list(verify.verify(cases[:1], plan, None, said))


def test_a_recipe_outside_the_study_has_the_models_own_rate_and_the_answer_says_so(tmp_path):
    taken = study.Taken(
        Plan(("grpo",), ("digits",), (0,), Budget(steps=2), 4), {"digits": {"grpo": "grpo@update.lr=0.02"}}
    )
    case = verify.Case("opo", RECIPES["opo"].findings[0], "digits")
    plan = verify.plan_of(case, taken.plan, taken)
    assert plan.arms == ("opo", "grpo@update.lr=0.02")
    assert verify._rates(case, plan, taken) == {
        "opo": {"rate": 0.01, "from": "the model's own"}, "grpo": {"rate": 0.02, "from": "the study"},
    }  # fmt: skip


@pytest.mark.parametrize("text", ["{}", "[]", "not json", '{"taken": {"digits": ["grpo"]}}'])
def test_what_is_no_study_is_refused_in_one_sentence(tmp_path, text):
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(Refused, match="not the sweep"):
        study.Taken.read(tmp_path / "sweep.json", "runs")
    with pytest.raises(Refused, match="There is no file"):
        study.Taken.read(tmp_path / "none.json", "runs")


def test_a_recipe_without_findings_is_refused_with_those_that_have_some():
    with pytest.raises(Refused, match=r"states no finding.*clip_cov"):
        verify.wanted("reinforce", "")
    with pytest.raises(Refused, match="a shelf with --shelf"):
        verify.wanted("", "")
    assert {case.recipe for case in verify.wanted("", "objective")} >= {"clip_cov", "opo"}


def test_calibration_counts_alarms_and_finds(tmp_path):
    told = planted.study("grpo", "digits", 0.1, 1, 2, Budget(steps=3), "speed", None, 4, str(tmp_path), silent())
    for counts in told["counts"].values():
        assert sum(counts.values()) == 1
    said = planted.sentence(told)
    assert "false alarms (stated level 5%" in said
    planted.save(told, tmp_path / "c.json")
    assert json.loads((tmp_path / "c.json").read_text())["factor"] == 0.1


# --- doctor --------------------------------------------------------------------------------------------------


def troubled(tmp_path, **courses):
    """A run of 20 updates in which some metrics go from one number to another."""
    store = synthetic(tmp_path / "run", steps=20, evaluations=2, kept=0)
    for step in range(1, 21):
        store.log(step, {name: a + (b - a) * (step - 1) / 19 for name, (a, b) in courses.items()})
    return {one.name: one for one in doctor.troubles(store)}


@pytest.mark.parametrize(
    ("courses", "name", "number"),
    [
        ({"entropy": (1.0, 0.01)}, "entropy collapse", "0.088"),
        ({"entropy": (0.5, 3.0)}, "entropy explosion", "2.803"),
        ({"silent_groups": (0.2, 0.9)}, "no signal", "84%"), ({"length": (5.0, 20.0)}, "length drift", "18"),
        ({"finished": (1.0, 0.5)}, "cut off", "46%"), ({"ratio_max": (1.0, 50.0)}, "ratio tails", "50"),
        ({"effective_samples": (1.0, 0.2)}, "ratio tails", "26%"), ({"unknown": (0.0, 0.1)}, "reward unknown", "9.2%"),
        ({"correct": (0.3, 0.3)}, "no progress", "30.0%"),
        ({"sampler_gap": (0.0, 0.5)}, "sampler and learner differ", "0.5"),
        ({"half_agreement": (0.01, 0.01), "correct": (0.3, 0.3)}, "noisy gradient", "0.010"),
    ],
)  # fmt: skip
def test_the_doctor_names_what_goes_wrong_with_the_number(tmp_path, courses, name, number):
    found = troubled(tmp_path, **courses)
    assert name in found
    assert number in found[name].sentence
    assert all(recipe in RECIPES for recipe in found[name].meant)


def test_the_doctor_finds_nothing_in_a_run_that_is_well(tmp_path):
    steady = {"entropy": (0.9, 0.6), "silent_groups": (0.3, 0.2), "correct": (0.2, 0.8), "reward": (0.2, 0.8)}
    found = troubled(tmp_path, **steady, grad_norm=(0.5, 0.5))
    assert set(found) <= {"forgetting", "narrowing"}  # the synthetic run forgets, and says so
    assert "forgetting" in found


def evaluated_twice(folder, before, after, tries=32, **about):
    """A run whose only trouble may be the held-out problems: right answers in `tries`, at the start and at the end."""
    store = Store.create(folder, {"recipe": "grpo", "focus": "test", "elsewhere": [], "seed": 0, **about})
    for step, row in ((0, before), (20, after)):
        rows = [Evaluated("test", f"p{i}", 1, tries, right, 5.0, 1.0, 4.0) for i, right in enumerate(row)]
        store.evaluated(step, rows)
    for step in range(1, 21):
        store.log(step, {"correct": 0.3 + 0.01 * step})
    return store


def found_in(store):
    return {one.name: one for one in doctor.troubles(store)}


def test_narrowing_is_said_only_beyond_the_chance_of_which_problems_were_asked(tmp_path):
    before = [2] * 34 + [0] * 14
    little = [0] * 4 + [2] * 32 + [0] * 12  # four lost and two new, of 48: it may as well be the other way round
    assert "narrowing" not in found_in(evaluated_twice(tmp_path / "a", before, little))
    one = found_in(evaluated_twice(tmp_path / "b", before, [0] * 14 + [3] * 21 + [0] * 13))["narrowing"]
    for part in ("pass@32 on test fell from 70.8% to 43.8%", "[-41.7, -14.6]", "14 that were solved", "1 is new"):
        assert part in one.sentence


def test_a_run_that_ends_below_its_start_is_told_so(tmp_path):
    one = found_in(evaluated_twice(tmp_path / "a", [16] * 40, [8] * 40))["worse than at the start"]
    assert "pass@1 on test fell from 50.0% to 25.0%" in one.sentence
    assert "worse than at the start" not in found_in(evaluated_twice(tmp_path / "b", [16] * 40, [15] * 20 + [18] * 20))


def test_large_steps_that_teach_nothing_are_named_with_the_learning_rate(tmp_path):
    settings = [{"address": "update.lr", "value": 0.0005, "default": None, "source": "the command line"}]
    stores = [evaluated_twice(tmp_path / name, [9] * 9, [9] * 9, settings=settings) for name in "ab"]
    for store, size in zip(stores, (0.03, 0.003), strict=True):
        for step in range(1, 21):
            store.log(step, {"correct": 0.12, **({"step_kl": size, "kl": 0.3} if step % 5 == 0 else {})})
    first, second = map(found_in, stores)
    assert next(iter(first)) == "steps too large"  # what to do first
    assert "0.030 nats per token" in first["steps too large"].sentence
    assert "--update.lr=0.00025" in first["steps too large"].sentence
    assert "steps too large" not in second


def test_a_recipe_is_not_recommended_to_itself(tmp_path):
    store = evaluated_twice(tmp_path / "a", [2] * 30, [0] * 30, recipe="nsr+pkpo")
    one = found_in(store)["narrowing"]
    assert not {"nsr", "pkpo"} & set(one.meant)
    said = Console(file=io.StringIO(), width=300)
    said.print(doctor.report(store))
    assert "already in this run: nsr, pkpo" in said.file.getvalue()
    assert "pass@1 on test: 6.2% at the start, 0.0% at the end" in said.file.getvalue()


def test_a_gradient_that_teaches_is_not_too_noisy_and_one_wide_gap_is_told_with_its_update(tmp_path):
    found = troubled(tmp_path, half_agreement=(0.01, 0.01), correct=(0.3, 0.5))
    assert "noisy gradient" not in found
    store = synthetic(tmp_path / "gap", steps=20, evaluations=2, kept=0)
    for step in range(1, 21):
        store.log(step, {"sampler_gap": 0.3 if step == 7 else 4e-6})
    assert "0.3 nats on one token, at update 7" in found_in(store)["sampler and learner differ"].sentence


def test_ratio_tails_say_only_what_is_out_of_bounds(tmp_path):
    one = troubled(tmp_path, ratio_max=(1.0, 50.0), ratio_tail=(0.0, 0.0), effective_samples=(1.0, 0.99))["ratio tails"]
    assert "the largest ratio of new to old policy was 50, at update 20" in one.sentence
    assert "outside" not in one.sentence
    assert "worth" not in one.sentence


# --- study ---------------------------------------------------------------------------------------------------


def test_a_study_sweeps_every_recipe_alike_on_seeds_of_its_own(plan, tmp_path):
    small = replace(plan, seeds=(0,), budget=Budget(steps=4), runs=str(tmp_path))
    chosen = study.sweep(small, [1e-5, 1e-2], (100,), "speed", silent())
    assert [study.named_in(arm) for arm in chosen.plans[0].arms] == ["grpo", "w_reinforce"]
    assert len(chosen.tried) == 4
    study.write_sweep(chosen, tmp_path / "sweep.json")
    assert (tmp_path / "sweep.md").read_text().count(" *") == 2
    assert chosen.plans[0].arms[0] == "grpo@update.lr=0.01"
    with pytest.raises(Refused, match="Seed 0 is in the sweep and in the comparison"):
        study.sweep(small, [1e-2], (0,), "speed", silent())


BREAKS = {
    "unborn": """from whet.papers import grpo

def never(reward):
    raise RuntimeError("no advantage today")

recipe = grpo.recipe.with_(name="unborn", new="it never begins", advantage=never)
""",
    "shortlived": """from whet.papers import grpo

def once(learner, batch, lr: float | None = None):
    raise RuntimeError("no update today")

recipe = grpo.recipe.with_(name="shortlived", new="it breaks at once", update=once)
""",
}


def test_a_recipe_that_fails_at_every_rate_is_left_out_and_named_and_the_others_go_on(tmp_path):
    from typer.testing import CliRunner

    from whet.cli import app
    from whet.report.study import page

    broken = [f"{tmp_path}/{name}.py" for name in BREAKS]
    for file, text in zip(broken, BREAKS.values(), strict=True):
        Path(file).write_text(text)
    words = ["study", "grpo", *broken, "--task", "digits", "--rates", "0.01", "--sweep-seeds", "1", "--seeds", "2"]
    words += ["--budget", "steps=2", "--samples", "4", "--runs", str(tmp_path / "r"), "--out", str(tmp_path / "o")]
    done = CliRunner().invoke(app, words)
    assert done.exception is None, done.exception
    told = json.loads((tmp_path / "o/study/comparison.json").read_text())["tasks"][0]
    assert [one["label"] for one in told["recipes"]] == ["grpo"]
    assert [one["recipe"] for one in told["left_out"]] == broken
    sweep = (tmp_path / "o/study/sweep.md").read_text()
    for text in (done.output, (tmp_path / "o/study/comparison.md").read_text(), sweep, page(tmp_path / "o", tmp_path)):
        said = " ".join(text.split())
        for why in ("no advantage today", "no update today"):
            assert why in said
    assert "at every learning rate" in sweep
    taken = study.Taken.read(tmp_path / "o/study/sweep.json", "runs")
    assert taken.plan.arms == ("grpo",)
    for typed in ([*words[:1], *broken, *words[4:]], [*words, "--against", broken[0]]):
        refused = CliRunner().invoke(app, [*typed, "--name", "again"])
        assert isinstance(refused.exception, Refused), refused.output
        assert "every learning rate" in str(refused.exception)
        assert not (tmp_path / "o/again/comparison.json").exists()


def test_settings_for_all_recipes_of_a_study_follow_its_options(tmp_path):
    from typer.testing import CliRunner

    from whet.cli import app

    words = ["study", "grpo", "rloo", "--task", "digits", "--rates", "0.01", "--sweep-seeds", "1", "--seeds", "1"]
    words += ["--budget", "steps=2", "--update.minibatches=2", "--runs", str(tmp_path / "r"), "--out", str(tmp_path)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "study" / "sweep.json").read_text())
    assert told["plan"]["settings"] == {"update.minibatches": "2"}
    assert list(told["taken"].values()) == [["grpo@update.lr=0.01", "rloo@update.lr=0.01"]]


def test_a_study_is_reported_under_the_names_of_its_recipes(runs):
    arms = dict(zip(("grpo@update.lr=0.01", "w_reinforce@update.lr=0.003"), runs.values(), strict=True))
    result = study.relabelled(gathered(arms, against="grpo@update.lr=0.01"))
    assert result.labels == sorted(runs, key=lambda name: -result.means["pass@1"][name]["value"])
    assert set(result.curves["correct"]) == set(result.law) == set(runs)
    assert {pair["a"] for pair in result.pairs["pass@1"]} == {"w_reinforce"}
    assert result.against == "grpo"


def test_a_list_of_recipes_is_a_text_file(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("grpo  # the first\n\nrloo\ngrpo\n")
    assert study.named([str(file), "opo"]) == ["grpo", "rloo", "opo"]
    with pytest.raises(Refused, match="There is no file"):
        study.named(["none.txt"])


# --- measures and laws -----------------------------------------------------------------------------------------


def test_measures_are_what_their_formula_says(tmp_path):
    store = synthetic(tmp_path / "run", steps=10, evaluations=2, kept=0)
    rows = [e for step, e in store.evaluations() if step == 10 and e.split == "test"]
    assert measure(store, "pass@1") == pytest.approx(sum(e.right / e.tries for e in rows) / len(rows))
    assert measure(store, "solvable") == pytest.approx(sum(e.right > 0 for e in rows) / len(rows))
    start, end = (measure(store, "pass@1:reverse", start=begun) for begun in (True, False))
    assert measure(store, "forgetting") == pytest.approx(start - end)
    correct = store.metrics()["correct"][1]
    assert measure(store, "speed") == pytest.approx(correct.mean())
    assert measure(store, "correct") == pytest.approx(correct[-2:].mean())
    with pytest.raises(Refused, match="needs 128 responses"):
        measure(store, "pass@128")


def test_the_law_is_not_fitted_where_entropy_does_not_move():
    assert laws.fit([[0.5, 0.1], [0.5, 0.2], [0.5, 0.3]]) is None


def test_forgetting_follows_the_kl_on_the_parity_toy():
    """At equal accuracy on the new task RL forgets less than imitation, and one curve fits all arms."""
    rates = {"rl": (0.03, 0.1), "sft1": (0.01, 0.03), "sft2": (0.03,), "oracle": (0.1,)}
    ends = [razor.tuned(arm, rate, seed=0) for arm in rates for rate in rates[arm]]
    by_arm = {(end.arm, end.rate): end for end in ends}
    assert by_arm["rl", 0.1].new > 0.98
    assert by_arm["sft1", 0.03].new > 0.98
    assert by_arm["rl", 0.1].lost < by_arm["sft1", 0.03].lost - 0.05
    assert by_arm["oracle", 0.1].kl < by_arm["rl", 0.1].kl < by_arm["sft1", 0.03].kl
    assert razor.explained(ends) > 0.8


def test_the_toy_is_kept_with_its_picture_and_its_caution(tmp_path):
    ends = razor.toy([0], [0.03, 0.3])
    razor.save(ends, tmp_path / "razor.json")
    told = json.loads((tmp_path / "razor.json").read_text())
    assert len(told["ends"]) == 8
    assert "changed once after its first result" in told["caution"]
    assert set(told["lost_at_98"]) == set(razor.ARMS)
    assert (tmp_path / "razor.svg").read_text().startswith("<svg")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Twelve runs of six recipes on two tasks, in which the KL grows from recipe to recipe."""
    folder, found = tmp_path_factory.mktemp("many"), []
    for i in range(12):
        store = synthetic(folder / f"run{i}", 10, i, 2, 0, recipe=f"r{i // 2}", task=("compose", "countdown")[i % 2])
        for step in range(1, 11):
            store.log(step, {"kl": 0.01 * (i + 1)})
        found.append(store)
    return found


def test_forgetting_against_kl_is_told_of_many_runs_task_by_task(many, tmp_path):
    said = Console(file=io.StringIO(), width=70)
    found = razor_runs.moved(many, said)
    said.print(razor_runs.report_of(found))
    text = "".join(said.file.getvalue().split())
    assert "Over6runsof6recipesoncompose,KL0.010to0.110natspertoken" in text
    assert "Over6runsof6recipesoncountdown" in text
    assert all(store.name in text for store in many)  # a name is never cut short
    razor_runs.save_of(found, tmp_path / "razor-runs.json")
    kept = json.loads((tmp_path / "razor-runs.json").read_text())
    assert len(kept["runs"]) == 12
    assert kept["tasks"]["compose"]["low"] <= kept["tasks"]["compose"]["rank"] <= kept["tasks"]["compose"]["high"]
    assert "Forgetting in 12 runs" in (tmp_path / "razor-runs.svg").read_text()
    assert "2 runs on compose: too few for a curve" in razor_runs.sentence(found[:4:2])


def test_a_rank_correlation_has_an_interval_that_knows_which_runs_are_alike():
    """Ten runs of one recipe are not ten witnesses."""
    spread = [razor_runs.Moved(f"{i}-{j}", f"r{i}", "t", i + j / 100, (-1) ** i * i + j / 100, 0.0)
              for i in range(6) for j in range(10)]  # fmt: skip
    apart = [razor_runs.Moved(one.run, one.run, "t", one.kl, one.lost, 0.0) for one in spread]
    alike, alone = (razor_runs.rank(runs) for runs in (spread, apart))
    assert alike["rank"] == alone["rank"]
    assert (alike["clusters"], alone["clusters"]) == (6, 60)
    assert alike["high"] - alike["low"] > 1.5 * (alone["high"] - alone["low"])
    rows = [razor_runs.Moved(str(i), str(i), "t", float(i), float(i), 0.0) for i in range(8)]
    assert razor_runs.rank(rows)["rank"] == pytest.approx(1.0)


def test_the_chance_of_the_evaluation_is_that_of_its_tries(tmp_path):
    store = synthetic(tmp_path / "run", 4, 0, 2, 0)
    store.log(4, {"kl": 0.1})
    (one,) = razor_runs.moved([store])
    rows = [e for step, e in store.evaluations() if step == 4 and e.split == "reverse"]
    errors = [e.right / e.tries * (1 - e.right / e.tries) / 63 for e in rows]
    assert one.chance == pytest.approx(sum(errors) ** 0.5 / len(rows))


def test_runs_whose_forgetting_says_nothing_together_are_refused(many, runs, tmp_path):
    with pytest.raises(Refused, match="splits that are not trained"):
        razor_runs.moved([store for stores in runs.values() for store in stores])
    other = synthetic(tmp_path / "other", 4, 0, 2, 0, base="another")
    with pytest.raises(Refused, match="began from different bases"):
        razor_runs.moved([many[0], other])
    going = synthetic(tmp_path / "going", 4, 0, 2, 0)
    going.status("running", "It goes on.")
    said = Console(file=io.StringIO(), width=200)
    assert len(razor_runs.moved([many[0], going], said)) == 1
    assert "1 of 2 runs are left out: not finished" in said.file.getvalue()


def test_a_kl_budget_buys_no_more_than_the_limit_and_all_of_it_with_enough():
    problems = [[1.0] * 2 + [0.0] * 6, [1.0] * 6 + [0.0] * 2, [0.0] * 8]
    gains = [laws.at_budget(problems, kl)["gain"] for kl in (0.0, 0.05, 0.2, 10.0)]
    assert gains == sorted(gains)
    assert gains[0] == pytest.approx(0.0, abs=1e-3)
    assert gains[-1] == pytest.approx((6 / 8 + 2 / 8) / 3, abs=1e-3)  # what was solved once can become certain


def test_the_laws_of_a_run_are_told_in_sentences(tmp_path):
    said = Console(file=io.StringIO(), width=300)
    said.print(laws_told.laws_of(synthetic(tmp_path / "run", 20, 0, 2, 0), 1.0))
    for part in (
        "R = ",
        "crossing of pass@k",
        "capability boundary",
        "alignment limit",
        "best of 2: ",
        "the limit is ",
    ):
        assert part in said.file.getvalue()


def told_by_laws(store):
    said = Console(file=io.StringIO(), width=400)
    said.print(laws_told.laws_of(store, 1.0))
    return said.file.getvalue()


def test_where_the_base_is_ahead_at_once_the_crossing_says_so_and_nothing_is_reached(tmp_path):
    worse = evaluated_twice(tmp_path / "a", [8] * 30, [2] * 20 + [0] * 10)
    worse.log(20, {"kl": 0.1, "length": 5.0})
    said = told_by_laws(worse)
    assert "the base is ahead at k = 1 already" in said
    assert "never gets ahead" not in said
    assert "% of it" not in said
    assert "at k = 32 the run has -33.3 points [-50.0, -16.7]" in said
    even = told_by_laws(evaluated_twice(tmp_path / "b", [8] * 30, [8] * 30))
    assert "as good at k = 1" in even


def test_a_law_carried_on_farther_than_what_was_seen_says_so(tmp_path):
    store = synthetic(tmp_path / "run", 20, 0, 2, 0)
    assert "farther than what was seen" not in told_by_laws(store)  # entropy falls from 0.8 to 0.25
    for step in range(1, 21):
        store.log(step, {"entropy": 0.5 - 0.01 * step})
    assert "farther than what was seen" in told_by_laws(store)


def test_the_laws_of_many_runs_are_one_table_by_task_and_recipe(many, tmp_path):
    from typer.testing import CliRunner

    from whet.cli import app

    for store in many:
        store.log(1, {"entropy_moved": -0.01, "entropy_told": -0.012})
    words = ["laws", *(str(store.folder) for store in many), "--out", str(tmp_path)]
    done = CliRunner().invoke(app, words)
    assert done.exception is None, done.exception
    assert "r5" in done.output
    assert "alignment limit" not in done.output  # of so many runs not one by one
    told = json.loads((tmp_path / "laws-runs.json").read_text())
    assert len(told) == 12
    row = next(row for row in told if (row["task"], row["recipe"]) == ("compose", "r0"))
    alone = laws.exchange([many[0]])
    assert (row["runs"], row["r2"]) == (1, [round(alone["r2"], 4)])
    assert (row["updates"], row["signs"], row["off"]) == (1, 1, 0.2)
