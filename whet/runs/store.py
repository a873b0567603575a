"""One directory for each run; it can be copied, opened and compared on another machine.

    run.json             what was asked (recipe, settings and their sources, task, base, seed) and how it ended
    run.sqlite           metrics by step, evaluations by step and problem
    rollouts/*.parquet   responses with the numbers of every token
    checkpoints/         made by the trainer
    report.html          made by `whet report`

A *step* is the number of updates done: the first update is logged as step 1, an evaluation before it as step 0.
Nothing here imports torch, numpy or pyarrow until it is needed, so that `whet runs` answers at once.
"""

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whet.refusal import Refused
from whet.runs.files import guarded, slug, write_aside

if TYPE_CHECKING:
    import numpy as np

    from whet.batch import Batch

FORMAT = 1
STATUSES = ("running", "finished", "stopped", "failed")
TABLES = """
CREATE TABLE IF NOT EXISTS metrics (
    step INTEGER NOT NULL, name TEXT NOT NULL, value REAL, PRIMARY KEY (step, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS evaluations (
    step INTEGER NOT NULL, split TEXT NOT NULL, problem TEXT NOT NULL, level INTEGER, tries INTEGER, "right" INTEGER,
    mean_length REAL, entropy REAL, "distinct" REAL, PRIMARY KEY (step, split, problem)) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Evaluated:
    """What one evaluation found about one problem, over `tries` responses of which `right` were right.

    `mean_length` is in tokens, `entropy` in nats per token, `distinct` the number of different responses.
    """

    split: str
    problem: str
    level: int
    tries: int
    right: int
    mean_length: float
    entropy: float
    distinct: float


@dataclass(frozen=True)
class Store:
    """The directory of one run. It holds no open file: it may be copied, pickled and used from several processes."""

    folder: Path

    @classmethod
    def create(cls, folder: str | Path, about: Mapping[str, Any]) -> "Store":
        """A new run in a folder that does not exist yet, or holds no run; its status is *running*."""
        folder = Path(folder)
        cls.free(folder)
        with guarded("create", folder):
            (folder / "rollouts").mkdir(parents=True, exist_ok=True)
        store = cls(folder)
        with guarded("write", store.database), closing(sqlite3.connect(store.database)) as connection:
            connection.executescript(TABLES)
        # run.json comes last: a folder that has it is a whole run.
        store._say({"started": _now(), **about, "format": FORMAT, **_status("running", "It has begun.")})
        return store

    @staticmethod
    def free(folder: Path) -> None:
        """Refused where a folder holds a run, or anything else that is not ours."""
        if folder.exists() and not _is_free(folder):
            raise Refused(f"{folder} already exists and is not empty: choose another name, or resume that run.")

    @classmethod
    def open(cls, folder: str | Path) -> "Store":
        """The run in a folder; refused when there is none, or when a newer whet wrote it."""
        store = cls(Path(folder))
        about = _read(store.folder)
        if about is None:
            raise Refused(f"{folder} is not a run: it has no readable run.json.")
        if about.get("format", FORMAT) > FORMAT:
            raise Refused(f"{folder} was written by a newer whet (format {about['format']}): update whet to open it.")
        return store

    # --- what the run is -----------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name of the run: that of its folder."""
        return self.folder.resolve().name

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.folder / "run.sqlite"

    @property
    def about(self) -> dict[str, Any]:
        """run.json as it is now."""
        about = _read(self.folder)
        if about is None:
            raise Refused(f"{self.folder / 'run.json'} can no longer be read.")
        return about

    @property
    def state(self) -> tuple[str, str]:
        """Status and sentence; a run whose process is gone without a word counts as stopped."""
        about = self.about
        if about["status"] == "running" and _gone(about):
            return "stopped", "Its process ended without saying why."
        return about["status"], about["sentence"]

    @property
    def finished(self) -> bool:
        """True when the run did all its steps."""
        return bool(self.about["status"] == "finished")

    def status(self, status: str, sentence: str) -> None:
        """Say how the run is doing, in one of `STATUSES` and one sentence."""
        if status not in STATUSES:
            raise ValueError(f"A status is one of {', '.join(STATUSES)}, not {status!r}.")
        self._say({**self.about, **_status(status, sentence)})

    def tell(self, **about: Any) -> None:
        """Add to, or replace in, what run.json says about the run."""
        self._say({**self.about, **about})

    def _say(self, about: Mapping[str, Any]) -> None:
        text = json.dumps(about, indent=1, ensure_ascii=False, default=str)
        write_aside(self.folder / "run.json", text.encode("utf-8", "backslashreplace"))

    # --- metrics and evaluations ---------------------------------------------------------------------------

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keep the metrics of the update number `step`, in their own units; told twice, the later numbers stay."""
        rows = [(step, name, float(value)) for name, value in metrics.items()]
        self._insert("INSERT OR REPLACE INTO metrics VALUES (?, ?, ?)", rows)

    def evaluated(self, step: int, rows: Iterable[Evaluated]) -> None:
        """Keep an evaluation after `step` updates: one row for each problem."""
        marks = ", ".join("?" * (1 + len(fields(Evaluated))))
        self._insert(f"INSERT OR REPLACE INTO evaluations VALUES ({marks})", [(step, *astuple(row)) for row in rows])

    def metrics(self, *names: str) -> "dict[str, tuple[np.ndarray, np.ndarray]]":
        """Metrics by name, all or some: steps [m] int and values [m] float, in the order of steps; unknown is nan."""
        import numpy as np

        found: dict[str, list[tuple[int, float]]] = {}
        some = f" WHERE name IN ({', '.join('?' * len(names))})" if names else ""
        for step, name, value in self._select(f"SELECT step, name, value FROM metrics{some} ORDER BY step", names):
            found.setdefault(name, []).append((step, float("nan") if value is None else value))
        return {
            name: (
                np.array([s for s, _ in rows], dtype=np.int64),
                np.array([v for _, v in rows], dtype=np.float64),
            )
            for name, rows in found.items()
        }

    def evaluations(self) -> list[tuple[int, Evaluated]]:
        """Every evaluated problem with the step it was evaluated after, in the order of the steps."""
        rows = self._select("SELECT * FROM evaluations ORDER BY step, split, problem")
        nan = float("nan")
        numbers: list[tuple[Any, ...]] = [(*row[:6], *(nan if x is None else x for x in row[6:])) for row in rows]
        return [(step, Evaluated(*rest)) for step, *rest in numbers]

    @property
    def steps(self) -> int:
        """The updates done so far: the last step that was logged."""
        return int(self._select("SELECT max(step) FROM metrics")[0][0] or 0)

    def rewind(self, steps: int) -> None:
        """Forget what came after `steps` updates, before a run resumes from a checkpoint taken there."""
        with self._connected() as connection:
            connection.execute("DELETE FROM metrics WHERE step > ?", (steps,))
            connection.execute("DELETE FROM evaluations WHERE step > ?", (steps,))
        self._forget_rollouts(lambda step, split: step > steps)
        for left in (*self.folder.glob(".*.aside"), *(self.folder / "rollouts").glob(".*.aside")):
            left.unlink(missing_ok=True)  # a process that was killed while it wrote them
        notes = [note for note in self.about.get("notes", []) if note["step"] <= steps]
        self.tell(notes=notes)

    def forget_evaluation(self, step: int) -> None:
        """Forget an evaluation after `step` updates, and what one that was broken off has kept."""
        with self._connected() as connection:
            connection.execute("DELETE FROM evaluations WHERE step = ?", (step,))
        self._forget_rollouts(lambda one, split: one == step and split != "train")

    def _forget_rollouts(self, which: Callable[[int, str], bool]) -> None:
        for step, split in self.rollout_steps():
            if which(step, split):
                self._rollout_file(step, split).unlink()

    def note(self, step: int, sentence: str) -> None:
        """Something that a reader of the run should know, in a sentence; it is kept in run.json."""
        self.tell(notes=[*self.about.get("notes", []), {"step": step, "sentence": sentence}])

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        # mode=rw and not ro: only a connection that may write can clean up after a crash in mid-commit.
        # A read-only file still opens. The timeout is the patience of a reader while another process commits.
        address = f"{self.database.resolve().as_uri()}?mode=rw"
        with guarded("use", self.database):
            connection = sqlite3.connect(address, uri=True, timeout=60)
            with closing(connection), connection:
                yield connection

    def _insert(self, command: str, rows: Sequence[tuple[Any, ...]]) -> None:
        with self._connected() as connection:
            connection.executemany(command, rows)

    def _select(self, command: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._connected() as connection:
            return connection.execute(command, values).fetchall()

    # --- responses -----------------------------------------------------------------------------------------

    def rollouts(
        self,
        step: int,
        batch: "Batch",
        pieces: Sequence[Sequence[str]],
        seen: Mapping[str, Any] | None = None,
        split: str = "train",
    ) -> Path:
        """Keep a batch: one row for each response, with the text and the numbers of each of its tokens.

        Rows are added to those that the same step and split already has: an evaluation comes in several batches.
        `pieces[i]` has the text of each of the `length[i]` tokens of response i. `seen` has what the learner saw
        at its first pass, as tensors [n t]: `logp` in nats and `push`, the derivative of the loss by it.
        """
        from whet.runs.rollouts import as_parquet

        path = self._rollout_file(step, split)
        with guarded("create", path.parent):
            path.parent.mkdir(exist_ok=True)
        earlier = path if path.exists() else None
        write_aside(path, as_parquet(step, split, batch, pieces, seen or {}, earlier))
        return path

    def rollout_steps(self) -> list[tuple[int, str]]:
        """Step and split of every file of responses, in the order of the steps."""
        stems = [path.stem.rpartition("-") for path in (self.folder / "rollouts").glob("[!.]*-*.parquet")]
        return sorted((int(step), split) for split, _, step in stems if step.isdigit())

    def samples(
        self,
        step: int | None = None,
        split: str | None = None,
        limit: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> list[dict[str, Any]]:
        """Kept responses as dictionaries (see `whet.runs.rollouts`), in the order of the steps, at most `limit`."""
        from whet.runs.rollouts import read

        rows: list[dict[str, Any]] = []
        for one, name in self.rollout_steps():
            if step in (None, one) and (split is None or slug(split) == name):
                left = None if limit is None else limit - len(rows)
                rows += read(self._rollout_file(one, name), left, columns)
            if limit is not None and len(rows) >= limit:
                break
        return rows

    def _rollout_file(self, step: int, split: str) -> Path:
        return self.folder / "rollouts" / f"{slug(split)}-{step:06d}.parquet"


# --- finding runs --------------------------------------------------------------------------------------------


def fresh(root: str | Path, recipe: str, task: str, seed: int, now: datetime | None = None) -> Path:
    """A new, empty folder `<recipe>-<task>-s<seed>-<date>-<time>`; taken names get -2, -3, …"""
    moment = (now or datetime.now()).strftime("%Y%m%d-%H%M%S")
    name = f"{slug(recipe)[:60]}-{slug(task)[:40]}-s{seed}-{moment}"
    for number in range(1, 1000):
        folder = Path(root) / (name if number == 1 else f"{name}-{number}")
        if not folder.exists():
            with guarded("create", folder):
                try:
                    folder.mkdir(parents=True)
                except FileExistsError:  # another run took the name between the two lines above
                    continue
            return folder
    raise Refused(f"{root} has a thousand runs named {name}: choose another folder.")


def all_runs(root: str | Path = "runs") -> list[Store]:
    """The runs in a folder, oldest first; anything else in it is passed over."""
    root = Path(root)
    found = [(about, path) for path in sorted(_folders(root)) if (about := _read(path)) is not None]
    return [Store(path) for about, path in sorted(found, key=lambda pair: str(pair[0].get("started", "")))]


def find(name_or_path: str | Path, root: str | Path = "runs") -> Store:
    """A run by its path, its name, the beginning of its name if only one begins so, or `last`."""
    word = str(name_or_path)
    if (Path(root) / word / "run.json").exists():
        return Store.open(Path(root) / word)
    if (Path(word) / "run.json").exists():
        return Store.open(word)
    runs = all_runs(root)
    if not runs:
        raise Refused(f"There are no runs in {Path(root)}/ yet: `whet train` makes one.")
    if word == "last":
        return runs[-1]
    begin = [run for run in runs if run.name.startswith(word)]
    if len(begin) == 1:
        return Store.open(begin[0].folder)
    names = [run.name for run in begin or runs]
    if begin:
        shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        raise Refused(f"{word!r} begins {len(names)} names: {shown}. Say more of it.")
    raise Refused(f"There is no run {word!r} in {Path(root)}/; the nearest is {_nearest(word, names)!r}.")


def _nearest(word: str, names: Sequence[str]) -> str:
    from difflib import SequenceMatcher

    # Names end in a date and a time that nobody types: compare as much of them as was typed.
    def likeness(name: str) -> float:
        return max(SequenceMatcher(None, word, part).ratio() for part in (name, name[: len(word) + 2]))

    return max(names, key=likeness)


def _folders(root: Path) -> Iterator[Path]:
    if root.is_dir():
        with guarded("list", root):
            yield from (path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _is_free(folder: Path) -> bool:
    """True for a folder with nothing in it, or only with what a process left that died while it made a run there."""
    if not folder.is_dir() or (folder / "run.json").exists():
        return False
    begun = {"run.sqlite", "run.sqlite-journal", "rollouts"}
    return all(
        path.name.startswith(".") or (path.name in begun and not (path.is_dir() and any(path.iterdir())))
        for path in folder.iterdir()
    )


# --- run.json ------------------------------------------------------------------------------------------------


def _read(folder: Path) -> dict[str, Any] | None:
    """run.json, or None where a folder is not a run."""
    try:
        about = json.loads((folder / "run.json").read_bytes())
    except (OSError, ValueError):  # no such file, or not JSON: somebody else's folder
        return None
    whole = isinstance(about, dict) and about.get("status") in STATUSES and "sentence" in about
    return about if whole else None


def _status(status: str, sentence: str) -> dict[str, Any]:
    over = {"ended": None if status == "running" else _now()}
    return {
        "status": status,
        "sentence": sentence,
        **over,
        "process": os.getpid(),
        "host": _host(),
    }


def _gone(about: Mapping[str, Any]) -> bool:
    """True when the process that wrote `running` is known to have ended; on another machine nothing is known."""
    here = about.get("host") == _host() and os.name == "posix"  # signal 0 is no question elsewhere
    if not here or not about.get("process"):
        return False
    try:
        os.kill(int(about["process"]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # somebody else's process: it lives
        return False
    return False


def _host() -> str:
    from platform import node

    return node()


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
