"""Settings that cannot work get one sentence before anything is sampled."""

import pytest

from whet.models.setup import Setup
from whet.prepare import Run
from whet.refusal import Refused
from whet.train import start_run


@pytest.mark.parametrize(
    ("setup", "sentence"),
    [
        ({"tokens_at_once": 10}, "10 tokens at once are fewer than one response of up to 72: raise --tokens-at-once"),
        ({"tokens_at_once": 71}, "71 tokens at once are fewer than one response"),
        ({"dtype": "bfloat16"}, "this processor multiplies bfloat16 matrices at 1.0 times .* take the dtype float32.$"),
        ({"dtype": "float16"}, "dtype 'float16' is not known: it is float32 or bfloat16.$"),
        ({"optimiser": "sgd"}, "there is no optimiser 'sgd': it is adamw or adamw_8bit.$"),
        ({"graph": True}, "--graph records steps on a GPU, and this is on cpu: take --device cuda or leave it out.$"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(setup, sentence, tmp_path, monkeypatch):
    monkeypatch.setattr("whet.engines.precision.speedup", lambda: 1.0)
    with pytest.raises(Refused, match=sentence) as caught:
        start_run(Run(recipe="grpo", task="compose", steps=1, out=str(tmp_path), setup=Setup(**setup)))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
