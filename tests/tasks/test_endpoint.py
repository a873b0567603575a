"""Judges behind an endpoint, against a real server that serves one of our small models, and against bad ones."""

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from whet.engines.local import LocalEngine
from whet.models import tiny
from whet.refusal import Refused
from whet.tasks import Problem, endpoint
from whet.tasks.data import Data


def grader():
    """A small model that was taught to grade: 9 where the response holds a 7, 2 elsewhere."""
    model, tokenizer = tiny.micro(0)
    engine = LocalEngine(model, tokenizer, lr=1e-2)
    problems = [Problem(f"{d}{c}", f"{c}{d}", "9" if d == 7 else "2") for d in range(10) for c in "abcdxyz"]
    learner = engine.learner(lambda f: -(f["logp"] * f["mask"]).mean(), frozenset({"logp"}))
    batch = engine.written(problems, [problem.answer for problem in problems])
    for _ in range(40):
        learner.gradient(batch)
        learner.step(1e-2, 1.0)
    return engine


class Server(ThreadingHTTPServer):
    """Chat completions by the model: it is shown what stands behind `Response:`. `trouble` comes first, in order."""

    def __init__(self, engine):
        super().__init__(("127.0.0.1", 0), Handler)
        self.engine, self.trouble, self.asked, self.lock, self.times = engine, [], Counter(), threading.Lock(), []

    def reply(self, question):
        response = question.rpartition("Response:")[2].partition("Reference")[0].strip()[-2:]
        with self.lock:
            said = self.engine.sample([Problem("q", response, "")], [1], greedy=True, max_tokens=2, seed=0)
        return f"Let me see. Score: {said.texts[0]}"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = body["messages"][-1]["content"]
        with self.server.lock:
            self.server.asked[question] += 1
            self.server.times.append(time.monotonic())
            trouble = self.server.trouble.pop(0) if self.server.trouble else None
        if isinstance(trouble, int):
            return self.send(trouble, {"error": {"message": "later"}}, {"Retry-After": "0.05"})
        if trouble is not None:
            return self.send(200, trouble)
        answer = {"role": "assistant", "content": self.server.reply(question)}
        used = {"prompt_tokens": len(question), "completion_tokens": 2, "total_tokens": len(question) + 2}
        choice = {"index": 0, "message": answer, "finish_reason": "stop"}
        return self.send(200, {"id": "1", "object": "chat.completion", "created": 0, "model": "m",
                               "choices": [choice], "usage": used})  # fmt: skip

    def send(self, status, body, headers=None):
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def model():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield grader()
    torch.set_num_threads(before)


@pytest.fixture
def server(model):
    server = Server(model)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def task(server, tmp_path):
    def make(kind="rubric", **more):
        told = {"kind": kind, "url": f"http://127.0.0.1:{server.server_port}/v1", "model": "m", "seconds": 5.0,
                "cache": str(tmp_path / "cache"), **more}  # fmt: skip
        (tmp_path / "judge.toml").write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in told.items()))
        rows = [{"prompt": f"say {c}", "answer": "7"} for c in "pqrs"]
        (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return Data(str(tmp_path / "x.jsonl"), judge_by=str(tmp_path / "judge.toml"), correct_from=0.8)

    return make


TEXTS = ["<think>x</think>a7", "b7", "c3", "d1"]


def test_a_rubric_is_graded_by_the_model_and_its_cost_is_counted(task, server):
    mine = task(dollars_per_million=[1.0, 1000.0])
    verdicts = mine.judge(mine.problems[:1] * 4, TEXTS)
    assert [v.score for v in verdicts] == [0.9, 0.9, 0.2, 0.2]
    assert [v.correct for v in verdicts] == [True, True, False, False]
    spent = mine.spent()
    letters = sum(len(question) for question in server.asked)
    assert spent["judge_requests"] == 4
    assert spent["judge_tokens"] == letters + 8
    assert spent["judge_dollars"] == pytest.approx((letters * 1.0 + 8 * 1000.0) / 1e6)
    assert not any("<think>" in question for question in server.asked)
    assert mine.spent()["judge_requests"] == 0


def test_the_same_question_is_asked_once_even_by_the_next_run(task, server):
    for _ in range(2):
        mine = task()
        assert [v.score for v in mine.judge(mine.problems[:1] * 4, [*TEXTS[:2], TEXTS[1], TEXTS[3]])] == [
            0.9,
            0.9,
            0.9,
            0.2,
        ]
    assert set(server.asked.values()) == {1}
    assert mine.spent()["judge_cached"] == 3
    other = task(rubric="short is best")
    other.judge(other.problems[:1], TEXTS[:1])
    assert len(server.asked) == 4


def test_a_busy_endpoint_is_asked_again(task, server):
    mine = task()
    server.trouble = [429, 503, 500]
    verdicts = mine.judge(mine.problems[:1] * 2, TEXTS[1:3])
    assert [v.score for v in verdicts] == [0.9, 0.2]
    assert sum(server.asked.values()) == 5


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        (401, "judge endpoint said 401"),
        ({"nonsense": 1}, "judge endpoint sent no chat completion"),
        ({"choices": [{"message": {"content": None}}]}, "judge endpoint sent no chat completion"),
        ({"choices": [{"message": {"content": "lovely"}}]}, "judge said no score"),
        ({"choices": [{"message": {"content": "Score: 70"}}]}, "judge said a score outside 0 to 10"),
    ],
)
def test_nonsense_is_unknown_with_its_reason_and_not_remembered_as_an_answer(task, server, trouble, reason):
    mine = task(retries=0)
    server.trouble = [trouble]
    [verdict] = mine.judge(mine.problems[:1], TEXTS[1:2])
    assert (verdict.score, verdict.reason) == (None, reason)
    if "score" not in reason:
        assert mine.judge(mine.problems[:1], TEXTS[1:2])[0].score == 0.9


def test_an_endpoint_that_is_down_is_unknown(task, server):
    mine = task(url="http://127.0.0.1:9/v1", retries=0)
    verdicts = mine.judge(mine.problems[:1] * 2, TEXTS[:2])
    assert [(v.score, v.reason) for v in verdicts] == [(None, "judge endpoint http://127.0.0.1:9/v1 is down")] * 2


def test_requests_keep_to_their_number_in_a_minute(task, server):
    mine = task(per_minute=1200)
    mine.judge(mine.problems[:1] * 4, TEXTS)
    gaps = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    assert server.times[-1] - server.times[0] > 2.4 * 60 / 1200, gaps


def test_pairs_are_asked_in_both_orders_and_the_better_response_wins_more(task, server, monkeypatch):
    def longer(question):
        one, other = (question.partition(f"Response {x}:\n")[2].partition("\n")[0] for x in "AB")
        return "Better: tie" if len(one) == len(other) else f"Better: {'A' if len(one) > len(other) else 'B'}"

    monkeypatch.setattr(server, "reply", longer)
    mine = task("pairs")
    problems = [*mine.problems[:1] * 3, mine.problems[1], *mine.problems[2:3] * 2]
    verdicts = mine.judge(problems, ["aaa", "aa", "a", "alone", "b", "c"])
    assert [v.score for v in verdicts] == [1.0, 0.5, 0.0, None, 0.5, 0.5]
    assert verdicts[3].reason == "judge had nothing to compare with"
    assert len(server.asked) == 8
    monkeypatch.setattr(server, "reply", lambda question: "Better: A")  # it favours a place
    assert [v.score for v in mine.judge(mine.problems[3:4] * 2, ["x", "y"])] == [0.5, 0.5]


def test_a_large_group_is_compared_in_rounds():
    pairs = endpoint.Pairs.__new__(endpoint.Pairs)
    pairs.settings = endpoint.Settings("pairs", "", "", opponents=4)
    met = pairs._pairs([{"prompt": "p"}] * 16)
    assert len(met) == 16 * 4  # each pair in both orders
    assert set(Counter(i for pair in met for i in pair).values()) == {8}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("kind = ", "is not TOML"),
        ('url = "u"\nmodel = "m"\n', 'does not say its kind: write kind = "rubric" or kind = "pairs"'),
        ('kind = "rubric"\nurl = "u"\n', "does not say its model"),
        ('kind = "stars"\nurl = "u"\nmodel = "m"\n', "it is rubric or pairs"),
        ('kind = "pairs"\nurl = "u"\nmodel = "m"\ncolour = 1\n', "says 'colour'.*it knows kind, url"),
        ('kind = "pairs"\nurl = "u"\nmodel = "m"\nkey = "NO_SUCH_KEY"\n', "the environment has no NO_SUCH_KEY"),
    ],
)
def test_a_judge_file_that_cannot_be_used_is_refused(tmp_path, content, sentence):
    (tmp_path / "judge.toml").write_text(content)
    with pytest.raises(Refused, match=sentence):
        endpoint.judge_from(tmp_path / "judge.toml")
