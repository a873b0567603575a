"""The run store: what is written comes back, is never half there, and is found again."""

import errno
import json
import math
import multiprocessing
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from datetime import datetime

import pytest

from whet.recipe import Refused
from whet.runs import files
from whet.runs.store import Evaluated, Store, all_runs, find, fresh

ABOUT = {"recipe": "grpo", "task": "digits", "seed": 1, "steps": 5}
ROW = Evaluated("test", "p1", 2, 8, 3, 12.5, 0.7, 6)


@pytest.fixture
def store(tmp_path):
    return Store.create(tmp_path / "run", ABOUT)


# --- round trip ----------------------------------------------------------------------------------------------


def test_what_is_told_about_a_run_comes_back(store):
    again = Store.open(store.folder)
    assert {name: again.about[name] for name in ABOUT} == ABOUT
    assert again.state == ("running", "It has begun.")
    assert not again.finished


def test_metrics_come_back_by_name_in_order_of_steps(store):
    store.log(2, {"loss": 0.5, "kl": float("nan")})
    store.log(1, {"loss": 1.5})
    metrics = store.metrics()
    assert [x.tolist() for x in metrics["loss"]] == [[1, 2], [1.5, 0.5]]
    assert metrics["kl"][0].tolist() == [2]
    assert math.isnan(metrics["kl"][1][0])
    assert list(store.metrics("kl")) == ["kl"]
    assert store.steps == 2


def test_an_infinite_metric_stays_infinite(store):
    store.log(1, {"ratio_max": float("inf")})
    assert store.metrics()["ratio_max"][1].tolist() == [float("inf")]


def test_a_step_told_twice_keeps_the_later_numbers(store):
    store.log(1, {"loss": 9.0})
    store.log(1, {"loss": 1.0})
    assert store.metrics()["loss"][1].tolist() == [1.0]


def test_evaluations_come_back(store):
    store.evaluated(0, [ROW])
    store.evaluated(4, [ROW, Evaluated("other", "p1", 0, 8, 8, 3.0, 0.1, 1)])
    assert store.evaluations() == [(0, ROW), (4, Evaluated("other", "p1", 0, 8, 8, 3.0, 0.1, 1)), (4, ROW)]


def test_an_unknown_entropy_comes_back_as_nan(store):
    store.evaluated(0, [Evaluated("test", "p1", 0, 1, 0, 1.0, float("nan"), 1)])
    assert math.isnan(store.evaluations()[0][1].entropy)


def test_a_copy_of_the_folder_is_the_same_run(store, tmp_path):
    store.log(1, {"loss": 1.0})
    store.evaluated(1, [ROW])
    copy = Store.open(shutil.copytree(store.folder, tmp_path / "elsewhere" / "copy"))
    assert copy.metrics()["loss"][1].tolist() == [1.0]
    assert copy.evaluations() == store.evaluations()


def test_rewinding_forgets_what_came_later(store):
    for step in (1, 2, 3):
        store.log(step, {"loss": float(step)})
        store.evaluated(step, [ROW])
    store.rewind(2)
    assert store.steps == 2
    assert [step for step, _ in store.evaluations()] == [1, 2]


# --- status --------------------------------------------------------------------------------------------------


def test_a_finished_run_says_so(store):
    store.status("finished", "All 5 steps are done.")
    assert store.finished
    assert store.state == ("finished", "All 5 steps are done.")
    assert store.about["ended"] is not None


def test_a_status_must_be_one_of_four(store):
    with pytest.raises(ValueError, match="running, finished, stopped, failed"):
        store.status("done", "…")


def test_a_run_whose_process_is_gone_counts_as_stopped(store):
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    store.tell(process=int(child.stdout))
    assert store.state == ("stopped", "Its process ended without saying why.")


def test_of_a_process_on_another_machine_nothing_is_known(store):
    store.tell(process=2**22 + 1, host="elsewhere")
    assert store.state[0] == "running"


# --- never half a file ---------------------------------------------------------------------------------------


def test_a_failing_write_leaves_the_old_file(store, monkeypatch):
    before = (store.folder / "run.json").read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(Refused, match=r"Could not write .*run.json: No space left on device. Free some space"):
        store.status("finished", "…")
    assert (store.folder / "run.json").read_bytes() == before
    assert sorted(path.name for path in store.folder.iterdir()) == ["rollouts", "run.json", "run.sqlite"]


def _limited():
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, 16_384))


def test_a_limit_on_the_size_of_files_is_told_in_a_sentence(tmp_path):
    """A real failure of the system, once in JSON and once inside SQLite."""
    code = (
        "from whet.recipe import Refused; from whet.runs.store import Store\n"
        f"store = Store.open({str(tmp_path / 'run')!r})\n"
        "many = {f'm{i}': i for i in range(5000)}\n"
        "for write in (lambda: store.tell(note='x' * 20000), lambda: store.log(1, many)):\n"
        "    try: write()\n"
        "    except Refused as refusal: print(refusal)\n"
    )  # fmt: skip
    Store.create(tmp_path / "run", ABOUT)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, preexec_fn=_limited)
    said = done.stdout.splitlines()
    assert len(said) == 2, done.stderr
    assert "run.json: File too large. Raise the limit" in said[0]
    assert said[1].startswith("Could not use")
    store = Store.open(tmp_path / "run")
    assert store.about["recipe"] == "grpo"
    assert store.metrics() == {}


def test_a_folder_that_cannot_be_made_is_told_in_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match=r"Could not create .*: Not a directory"):
        Store.create(tmp_path / "file" / "run", ABOUT)


def test_a_run_is_never_made_over_another(store):
    with pytest.raises(Refused, match="already exists and is not empty"):
        Store.create(store.folder, ABOUT)


# --- reading while writing -----------------------------------------------------------------------------------


def _write(folder, steps):
    store = Store.open(folder)
    for step in range(1, steps + 1):
        store.log(step, {f"m{i}": float(step) for i in range(20)})
        store.status("running", f"Step {step}.")


def test_reading_while_another_process_writes_sees_only_whole_steps(store):
    writer = multiprocessing.get_context("fork").Process(target=_write, args=(store.folder, 60))
    writer.start()
    seen = []
    while writer.is_alive():
        metrics = store.metrics()
        assert len({len(steps) for steps, _ in metrics.values()}) <= 1, "a step was seen in part"
        seen.append(store.steps)
        assert store.state[0] in ("running", "stopped")
    writer.join()
    assert writer.exitcode == 0
    assert seen == sorted(seen)
    assert store.steps == 60


def test_a_reader_waits_for_a_writer_that_holds_the_lock(store):
    store.log(1, {"loss": 1.0})
    other = sqlite3.connect(store.database, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    began = time.perf_counter()
    waiting = threading.Timer(0.3, other.close)
    waiting.start()
    assert store.steps == 1
    assert time.perf_counter() - began >= 0.25
    waiting.join()


# --- finding -------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path):
    for day, name in enumerate(("grpo-digits-s0-20260101-101010", "grpo-digits-s1-20260101-101112", "rloo-digits-s0")):
        Store.create(tmp_path / name, {**ABOUT, "started": f"2026-01-0{day + 1}T00:00:00"})
    (tmp_path / "notes").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text('{"recipe": ')
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "run.json").write_text('{"not": "ours"}')
    (tmp_path / "file.txt").write_text("")
    return tmp_path


def test_all_runs_are_listed_oldest_first_and_foreign_folders_passed_over(root):
    assert [run.name[:13] for run in all_runs(root)] == ["grpo-digits-s", "grpo-digits-s", "rloo-digits-s"]
    assert all_runs(root / "nowhere") == []


def test_a_run_is_found_by_name_by_beginning_by_path_and_as_the_last(root):
    assert find("rloo-digits-s0", root).name == "rloo-digits-s0"
    assert find("rl", root).name == "rloo-digits-s0"
    assert find("grpo-digits-s1", root).name == "grpo-digits-s1-20260101-101112"
    assert find(root / "rloo-digits-s0", "nowhere").name == "rloo-digits-s0"
    assert find("last", root).name == "rloo-digits-s0"


def test_a_run_that_is_here_has_the_name_of_its_folder(root, monkeypatch):
    monkeypatch.chdir(root / "rloo-digits-s0")
    assert find(".", "nowhere").name == "rloo-digits-s0"


def test_a_beginning_that_several_share_is_refused_with_their_names(root):
    with pytest.raises(Refused, match=r"'grpo' begins 2 names: grpo-digits-s0-\d+-\d+, grpo-digits-s1-"):
        find("grpo", root)


def test_a_name_that_is_not_there_is_answered_with_the_nearest(root):
    with pytest.raises(Refused, match="the nearest is 'rloo-digits-s0'"):
        find("roo", root)
    with pytest.raises(Refused, match=r"There are no runs in .*nowhere/ yet"):
        find("grpo", root / "nowhere")


@pytest.mark.parametrize("name", ["notes", "broken", "other"])
def test_a_foreign_folder_is_not_opened(root, name):
    with pytest.raises(Refused, match="is not a run"):
        Store.open(root / name)


def test_a_run_of_a_newer_whet_is_not_opened(store):
    about = json.loads((store.folder / "run.json").read_text())
    (store.folder / "run.json").write_text(json.dumps({**about, "format": 99}))
    with pytest.raises(Refused, match="written by a newer whet"):
        Store.open(store.folder)


def test_a_new_name_says_what_the_run_is_and_is_never_taken(tmp_path):
    now = datetime(2026, 1, 2, 3, 4, 5)
    names = [fresh(tmp_path, "grpo+kl", "my tasks/a b.jsonl", 7, now).name for _ in range(3)]
    assert names[0] == "grpo+kl-my-tasks-a-b.jsonl-s7-20260102-030405"
    assert names[1:] == [names[0] + "-2", names[0] + "-3"]
    Store.create(tmp_path / names[0], ABOUT)


# --- cheap ---------------------------------------------------------------------------------------------------


def test_listing_runs_loads_nothing_heavy(store):
    code = (
        "import sys; from whet.runs.store import all_runs\n"
        f"all_runs({str(store.folder.parent)!r})[0].state\n"
        "print([name for name in ('torch', 'numpy', 'pyarrow', 'altair', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_somebody_else_is_told_in_a_sentence(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(Refused, match="Permission denied"):
        Store.create(tmp_path / "run", ABOUT)
    tmp_path.chmod(0o700)
