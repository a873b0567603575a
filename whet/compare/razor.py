"""RL's Razor (Shenfeld et al. 2025, 2509.04259) on a parity toy: what is forgotten follows the KL on the new task.

One network names digits. It was trained on two tasks at once: *parity*, where any digit of the right parity is
right, and *prior*, where exactly one answer is. Then it is trained on parity alone, in four ways:

    rl       policy gradient: REINFORCE with a baseline, exact expectation over the ten answers
    sft1     one label: 0 for even, 1 for odd
    sft2     two labels: {0, 4} for even, {1, 5} for odd
    oracle   the I-projection q*(y|x) = π0(y|x) 1[y right] / Σ: of all right policies the nearest to the start

Forgetting is prior accuracy lost. The paper takes MNIST and Fashion-MNIST; here the inputs are Gaussian clusters, one
for each class, so that nothing has to be downloaded. The oracle is the nearest right policy in KL(q | π0); a policy
gradient need not find it exactly: with π0 = (.5, .3, .15, .05) and the middle two right it ends at (0, .998, .002, 0)
and not at (0, .667, .333, 0). So the oracle is an arm of its own.
"""

import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from rich.console import Group
from rich.table import Table
from rich.text import Text
from torch import Tensor

from whet.runs.files import write_aside

CLASSES, WIDTH, NOISE = 10, 32, 0.7
KNOWN = 0.7  # ours: the share of right parity labels before fine-tuning, so that there is room to learn
ARMS = ("rl", "sft1", "sft2", "oracle")
NAMES = {
    "rl": "RL",
    "sft1": "imitation, one label",
    "sft2": "imitation, two labels",
    "oracle": "imitation of the oracle",
}
CAUTION = (
    "The toy is ours (Gaussian clusters for the paper's images) and was changed once after its first result had been "
    "seen, so it illustrates the law and does not test it."
)
LABELS = {"sft1": ((0,), (1,)), "sft2": ((0, 4), (1, 5))}


@dataclass(frozen=True)
class End:
    """One fine-tuned policy: KL(π0 | π) on the new task in nats, accuracies as shares, `lost` on the prior task."""

    arm: str
    rate: float
    seed: int
    kl: float
    new: float
    lost: float


def problems(seed: int, count: int = 400) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs [n d] of both tasks, their digits [n], and True for parity [n]; the last input says which task it is."""
    rng = torch.Generator().manual_seed(0)  # the clusters are the task; only the draws depend on the seed
    centres = torch.randn(2, CLASSES, WIDTH, generator=rng)
    rng = torch.Generator().manual_seed(1 + seed)
    parity = torch.arange(count) % 2 == 0
    digit = torch.randint(CLASSES, (count,), generator=rng)
    x = centres[parity.long(), digit] + NOISE * torch.randn(count, WIDTH, generator=rng)
    return torch.cat([x, 2.0 * parity[:, None].float() - 1], 1), digit, parity


def right_parity(digit: Tensor) -> Tensor:
    """The answers of the same parity as each digit, [n 10].

    >>> right_parity(torch.tensor([3]))[0].nonzero().flatten().tolist()
    [1, 3, 5, 7, 9]
    """
    return (torch.arange(CLASSES) - digit[:, None]) % 2 == 0


def projected(start: Tensor, right: Tensor) -> Tensor:
    """q*: the start's distribution [n 10] over the right answers; where it has no mass there, it stays as it is.

    >>> pi = torch.tensor([[.05, .30, .10, .05, .20, .05, .10, .05, .05, .05]])
    >>> [round(x, 3) for x in projected(pi, right_parity(torch.tensor([0])))[0].tolist()]
    [0.1, 0.0, 0.2, 0.0, 0.4, 0.0, 0.2, 0.0, 0.1, 0.0]
    """
    mass = (start * right).sum(1, keepdim=True)
    return torch.where(mass > 0, start * right / mass.clamp(min=1e-30), start)


@cache
def network(seed: int) -> torch.nn.Module:
    """The policy before fine-tuning: trained on both tasks, with parity labels that are right seven times in ten."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = torch.nn.Sequential(torch.nn.Linear(WIDTH + 1, 64), torch.nn.ReLU(), torch.nn.Linear(64, CLASSES))
    x, digit, parity = problems(seed)
    rng = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    for _ in range(300):
        any_right = torch.multinomial(
            KNOWN * right_parity(digit) + (1 - KNOWN) * ~right_parity(digit), 1, generator=rng
        )
        label = torch.where(parity, any_right.squeeze(1), digit)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), label).backward()
        optimizer.step()
    return model


def tuned(arm: str, rate: float, seed: int, steps: int = 400) -> End:
    """Fine-tune on parity alone with plain gradient descent, and look at what became of both tasks."""
    model = deepcopy(network(seed))
    x, digit, parity = problems(seed)
    x, digit, right = x[parity], digit[parity], right_parity(digit[parity])
    before = model(x).softmax(1).detach()
    prior_before = _prior(model, seed)
    target = projected(before, right) if arm == "oracle" else _labels(arm, digit)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for _ in range(steps):
        logp = model(x).log_softmax(1)
        if arm == "rl":
            pi = logp.detach().exp()
            reward = right.float()
            advantage = reward - (pi * reward).sum(1, keepdim=True)
            loss = -(pi * advantage * logp).sum(1).mean()
        else:
            loss = -(target * logp).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = model(x).log_softmax(1).detach()
    kl = (before * (before.clamp(min=1e-30).log() - after)).sum(1).mean()
    new = (after.exp() * right).sum(1).mean()
    return End(arm, rate, seed, float(kl), float(new), prior_before - _prior(model, seed))


def _labels(arm: str, digit: Tensor) -> Tensor:
    if arm not in LABELS:
        return torch.zeros(len(digit), CLASSES)
    table = torch.zeros(2, CLASSES)
    for odd, answers in enumerate(LABELS[arm]):
        table[odd, list(answers)] = 1 / len(answers)
    return table[digit % 2]


def _prior(model: torch.nn.Module, seed: int) -> float:
    x, digit, parity = problems(seed + 1000)  # held out
    with torch.no_grad():
        return float((model(x[~parity]).argmax(1) == digit[~parity]).float().mean())


def explained(ends: Sequence[Any]) -> float:
    """R² of forgetting as a quadratic in the KL, over all arms or runs together."""
    import numpy as np

    kl, lost = np.array([end.kl for end in ends]), np.array([end.lost for end in ends])
    fitted = np.polyval(np.polyfit(kl, lost, 2), kl)
    return float(1 - ((lost - fitted) ** 2).sum() / ((lost - lost.mean()) ** 2).sum())


def at_equal(ends: Sequence[End], new: float = 0.98) -> dict[str, float]:
    """What each arm forgets at the smallest KL at which it is right on parity at least so often; mean over seeds."""
    found: dict[str, list[float]] = {}
    for arm, seed in dict.fromkeys((end.arm, end.seed) for end in ends):
        there = [end for end in ends if (end.arm, end.seed) == (arm, seed) and end.new >= new]
        if there:
            found.setdefault(arm, []).append(min(there, key=lambda end: end.kl).lost)
    return {arm: sum(lost) / len(lost) for arm, lost in found.items()}


def toy(seeds: Sequence[int], rates: Sequence[float]) -> list[End]:
    """Every arm at every learning rate and seed."""
    return [tuned(arm, rate, seed) for seed in seeds for arm in ARMS for rate in rates]


def report(ends: Sequence[End]) -> Group:
    """What `whet razor` prints of the toy: means over seeds, and how well one curve in the KL fits all arms."""
    seeds = sorted({end.seed for end in ends})
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("arm", "learning rate", "right on parity", "KL to the start, nats", "lost on the prior task"):
        table.add_column(name, justify="left" if name == "arm" else "right")
    for arm, rate in dict.fromkeys((end.arm, end.rate) for end in ends):
        mine = [end for end in ends if (end.arm, end.rate) == (arm, rate)]
        new, kl, lost = (sum(getattr(end, name) for end in mine) / len(mine) for name in ("new", "kl", "lost"))
        table.add_row(arm, f"{rate:g}", f"{new:.1%}", f"{kl:.3f}", f"{100 * lost:+.1f} points")
    fits = [explained([end for end in ends if end.seed == seed]) for seed in seeds]
    spread = f" ({min(fits):.2f} to {max(fits):.2f} over {len(fits)} seeds)" if len(fits) > 1 else ""
    equal = ", ".join(f"{arm} {100 * lost:.1f} points" for arm, lost in at_equal(ends).items())
    return Group(
        table,
        Text(f"Forgetting as a quadratic in the KL, all arms together: R² = {sum(fits) / len(fits):.2f}{spread}."),
        Text(f"Lost once 98 % are right on parity: {equal}."),
        Text(CAUTION, "dim"),
    )


# --- many runs -------------------------------------------------------------------------------------------


# --- keeping ---------------------------------------------------------------------------------------------


def save(ends: Sequence[End], path: Path) -> None:
    """As JSON, with the picture beside it."""
    seeds = sorted({end.seed for end in ends})
    told = {
        "seeds": seeds, "r2": {str(s): explained([end for end in ends if end.seed == s]) for s in seeds},
        "lost_at_98": at_equal(ends), "caution": CAUTION, "ends": [asdict(end) for end in ends],
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    write_aside(path, json.dumps(told, indent=1).encode())
    write_aside(path.with_suffix(".svg"), picture(ends).encode())


def picture(ends: Sequence[End]) -> str:
    """Forgetting against KL, a dot for each arm, rate and seed."""
    import altair as alt

    rows = [{"arm": NAMES[end.arm], "kl": end.kl, "lost": end.lost} for end in ends]
    across, up = "KL(start | policy) on the new task, nats", "accuracy lost on the prior task"
    return drawn_as(rows, list(NAMES.values()), across, up, "The parity toy of RL's Razor", alt.Axis(format=".0%"))


def drawn_as(rows: list[dict[str, Any]], names: list[str], x: str, y: str, title: str, axis: Any) -> str:
    """A scatter as SVG of rows with `arm`, `kl` and `lost`."""
    import altair as alt
    import vl_convert

    from whet.report.plots import COLORS, _config

    chart = (
        alt.Chart(alt.NamedData("rows")).mark_circle(size=60, opacity=0.85)
        .encode(
            x=alt.X("kl:Q", title=x),
            y=alt.Y("lost:Q", title=y, axis=axis),
            color=alt.Color("arm:N", sort=names, scale=alt.Scale(domain=names, range=list(COLORS[: len(names)])),
                            legend=alt.Legend(title=None, orient="bottom", symbolOpacity=1)),
        )
        .properties(width=460, height=280, title=title)
    )  # fmt: skip
    spec = chart.configure(**_config()).to_dict(validate=False)
    return vl_convert.vegalite_to_svg({**spec, "datasets": {"rows": rows}})
