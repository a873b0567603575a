"""PPO-BR (Rahman 2025): a clip range that widens with entropy and narrows when the reward stops changing.

    ε_t = ε_0 (1 + λ_1 tanh φ - λ_2 tanh ψ),  kept within ε_0 (1 - λ_2) and ε_0 (1 + λ_1)
    φ   = clip(H / H_max, 0, 1),   ψ = 1 - tanh |ΔR|,   ΔR = relative change between the halves of the last returns

So a policy that explores may move further, and one whose reward is flat may not.
"""

from math import tanh
from typing import Any

from whet.papers import ppo
from whet.recipe import Finding, Paper, Remembers


def clip_range(
    phi: float,
    change: float,
    centre: float = 0.2,  # as PPO: ε_0
    widen: float = 0.5,  # a third party's port: λ_1
    narrow: float = 0.3,  # a third party's port: λ_2
) -> float:
    """ε from the normalised entropy φ and the relative change of the reward.

    >>> [round(clip_range(phi, change), 6) for phi, change in ((1, 1), (1, 0), (0, 0), (0.5, 0.1))]
    [0.26212, 0.230464, 0.154304, 0.203224]
    """
    epsilon = centre * (1 + widen * tanh(phi) - narrow * tanh(1 - tanh(abs(change))))
    return min(max(epsilon, centre * (1 - narrow)), centre * (1 + widen))


def relative_change(returns: tuple[float, ...], least: int) -> float:
    """How much the mean of the later half differs from that of the earlier one, as a share; 0 before `least` returns.

    >>> relative_change((1., 1., 2., 2.), least=4)
    1.0
    """
    if len(returns) < least:
        return 0.0
    half = len(returns) // 2
    early, late = sum(returns[:half]) / half, sum(returns[-half:]) / half
    return (late - early) / max(abs(early), 1e-8)


def adaptive_clip(
    metrics: Any,
    memory: Any,
    entropy_max: float = 2.0,  # ours, in nats: H_max; the paper's tasks have other action spaces
    window: int = 20,  # a third party's port: the last 20 returns
    least: int = 10,  # a third party's port: ΔR is 0 before 10 returns
    centre: float = 0.2,  # as PPO: ε_0
    widen: float = 0.5,  # a third party's port: λ_1
    narrow: float = 0.3,  # a third party's port: λ_2
) -> Any:
    """Sets both bounds of the clip after each step, from the entropy and the last rewards.

    >>> adaptive_clip({"entropy": 2.0, "reward": 0.5}, ())[0]["loss.high"].__round__(6)
    0.230464
    """
    returns = (*memory, metrics["reward"])[-window:]
    phi = min(max(metrics["entropy"] / entropy_max, 0.0), 1.0)
    epsilon = clip_range(phi, relative_change(returns, least), centre, widen, narrow)
    return {"loss.low": epsilon, "loss.high": epsilon}, returns


recipe = ppo.recipe.with_(
    name="ppo_br",
    findings=(Finding("speed", "ppo", "up", "29.1 % faster convergence", "abstract"),),
    paper=Paper(
        "PPO-BR: Dual-Signal Entropy-Reward Adaptation for Trust Region Policy Optimization",
        arxiv="2505.17714",
        date="2025-05-23",
        authors="Rahman, Ben",
    ),
    new="the clip range follows the entropy and the progress of the reward",
    control=(Remembers(adaptive_clip, start=()),),
    claims=("policy_gradient",),
    departs=(
        "Assumed: ψ = 1 - tanh |ΔR| and the windows, after a third party's port; the paper's own ψ was not seen, and "
        "the sign of ΔR is ambiguous.",
        "Assumed: H_max is 2 nats.",
        "One return for each batch, the mean reward; the paper's tasks have one for each episode.",
    ),
)
