"""The study of samplers that are not the policy can be run: `gap.py` is a command, not a test."""

from tests.learning import gap


def test_a_sampler_that_is_behind_is_told_from_the_policy(monkeypatch):
    monkeypatch.setattr(gap, "STEPS", 3)
    monkeypatch.setattr(gap, "share_right", lambda engine, samples: 0.0)
    (_, own), (_, behind) = (gap.learned("grpo", 0, how) for how in ({}, {"every": 8}))
    assert own < 1e-5 < behind
