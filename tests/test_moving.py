"""A TRL configuration becomes a command that whet accepts, with the same loss, and nothing is dropped in silence."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch

from tests.laws.harness import case, run_fields
from whet import groups, moving, shelf
from whet.cli import settings_of
from whet.moving import DEFAULTS, NO_EQUIVALENT, OF_VLLM, ONLY_LOOKS, from_trl
from whet.refusal import Refused
from whet.settings import with_settings
from whet.step import objective, weigh

DOCS = Path(__file__).parents[1] / "docs"
PYTHON = """
from datasets import load_dataset
from peft import LoraConfig
from trl import GRPOConfig, GRPOTrainer
from trl.rewards import accuracy_reward

rate = 1e-5
config = GRPOConfig(
    output_dir="out", learning_rate=2e-6, loss_type="dr_grpo", scale_rewards=False, num_generations=16, beta=0.01,
    per_device_train_batch_size=16, gradient_accumulation_steps=4, steps_per_generation=8, max_steps=500,
    epsilon_high=0.28, num_iterations=2, mask_truncated_completions=True, max_completion_length=2048, delta=1.5,
    use_vllm=True, vllm_mode="colocate", report_to=["wandb"], logging_steps=1, sync_ref_model=True, brand_new=3,
    chat_template_kwargs={"enable_thinking": False},
)
trainer = GRPOTrainer(
    model="Qwen/Qwen3-0.6B", reward_funcs=accuracy_reward, args=config, train_dataset=load_dataset("open-r1/math"),
    peft_config=LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"]),
)
"""


def moved(tmp_path, text, name="config.yaml"):
    (tmp_path / name).write_text(text)
    return from_trl(tmp_path / name)


def options(found):
    """The settings of the command by address, and its other options."""
    return settings_of([word for word in found.words[1:] if word.startswith("--") and "." in word.partition("=")[0]])


def test_a_python_file_is_read_without_being_run(tmp_path):
    found = moved(tmp_path, PYTHON, "train.py")
    command = shlex.split(found.told().partition("\n\n")[0].replace("\\\n", " "))
    assert command[:3] == ["whet", "train", "dr_grpo+overlong_filter+k3_loss"]
    said = " ".join(command)
    for words in (
        "--model Qwen3-0.6B", "--task math", "--judge math", "--max-tokens 2048", "--choose.prompts=8", "--steps 500",
        "--sample.responses=16", "--update.minibatches=2", "--update.epochs=2", "--update.lr=2e-06",
        "--loss.low=0.2", "--loss.high=0.28", "--penalties.k3.beta=0.01", "--lora r=8,alpha=16,targets=q_proj|v_proj",
        "--thinking off", "--track wandb", "--recompute", "--dtype bfloat16", "--seed 42",
    ):  # fmt: skip
        assert words in said, words
    missing = "\n".join(found.missing)
    for name in ("delta=1.5", "sync_ref_model=True", "brand_new=3", "vllm_importance_sampling_mode='sequence_mask'"):
        assert name in missing, name
    assert "--engine vllm --engine.memory=0.3" in said
    assert "vllm_mode" not in missing  # the same process, as here
    assert "hf download Qwen/Qwen3-0.6B --local-dir Qwen3-0.6B" in found.told()
    assert "linear" in found.told()


def test_what_people_write_around_a_config_is_moved_or_named(tmp_path):
    """As in the recipes of open-r1: fields of the script beside those of the trainer, and one that does not divide."""
    text = (
        "system_prompt: You think first.\ngradient_checkpointing_kwargs:\n  use_reentrant: false\nlog_level: info\n"
        "num_train_epochs: 1\nmax_steps: 500\nmax_prompt_length: 1024\ncallbacks:\n- mine\nmodel_revision: main\n"
        "num_generations: 14\nper_device_train_batch_size: 16\ngradient_accumulation_steps: 4\n"
        "lr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs:\n  min_lr_rate: 0.1\n"
        "reward_funcs:\n- code\n- format\n"
    )
    found = moved(tmp_path, text)
    assert found.words[found.words.index("--system") + 1] == "You think first."
    assert [row.partition("=")[0] for row in found.missing] == ["reward_funcs", "callbacks", "max_prompt_length"]
    assert any("64 is no multiple of num_generations=14" in row for row in found.differs)
    assert "num_train_epochs" in "".join(moved(tmp_path, text.replace("max_steps: 500\n", "")).missing)


def test_every_default_of_trl_is_named(tmp_path):
    found = moved(tmp_path, "output_dir: out\n")
    assert found.words[0] == "grpo+token_mean"
    settings = options(found)
    assert settings["penalties.k3.beta"] == "0.0"
    assert settings["update.lr"] == "1e-06"
    assert settings["advantage.epsilon"] == "0.0001"
    assert settings["sample.responses"] == "8"
    assert not found.missing


def test_the_defaults_are_those_that_trl_told():
    recorded = json.loads((DOCS.parent / "golden" / "trl_update.json").read_text())["defaults"]
    assert {name: recorded[name] for name in DEFAULTS} == DEFAULTS
    assert recorded["lr_scheduler_type"] == "linear"
    assert recorded["weight_decay"] == 0.0
    known = {*DEFAULTS, *ONLY_LOOKS, *NO_EQUIVALENT, *OF_VLLM, *moving._MAPPED}
    ours = ("vllm", "entropy", "top_", "min_p", "num_", "loss", "beta", "epsilon", "scale", "sapo", "vespo", "mask",
            "temperature", "generation", "importance", "ref_", "sync", "delta", "reward", "max_c", "multi")  # fmt: skip
    assert {name for name in recorded if name.startswith(ours)} <= known


@pytest.mark.parametrize("kind", ["grpo", "bnpo", "dapo", "dr_grpo", "cispo", "sapo", "luspo", "vespo"])
@pytest.mark.parametrize(
    "more",
    [
        "",
        "beta: 0.04\n",
        "mask_truncated_completions: true\n",
        "importance_sampling_level: sequence\n",
        "off_policy_mask_threshold: 0.1\n",
    ],
)
def test_every_command_is_one_that_whet_accepts(kind, more, tmp_path):
    text = f"loss_type: {kind}\n{more}"
    if kind in ("cispo", "sapo", "luspo", "vespo") and "off_policy" in more:  # two recipes that set the loss
        with pytest.raises(Refused, match="both set"):
            moved(tmp_path, text)
        return
    found = moved(tmp_path, text)
    recipe = with_settings(shelf.load(found.words[0]), options(found))
    assert ("k3" in [part.func.__name__ if hasattr(part, "func") else part.__name__ for part in recipe.penalties]) >= (
        "beta" in more
    )


@pytest.mark.parametrize(
    ("mode", "recipe", "setting"),
    [
        ("token_truncate", "dapo+rollout_is", "weights.truncated.upper"),
        ("sequence_truncate", "dapo+sequence_is", "weights.sequence_truncated.upper"),
    ],
)
def test_the_correction_for_vllm_is_moved_with_its_bound(mode, recipe, setting, tmp_path):
    text = f"use_vllm: true\nvllm_importance_sampling_mode: {mode}\nvllm_importance_sampling_clip_max: 2.5\n"
    found = moved(tmp_path, text)
    assert found.words[0] == "grpo+token_mean" + recipe.removeprefix("dapo")
    assert options(found)[setting] == "2.5"
    own = {name: value for name, value in options(found).items() if not name.startswith("engine.")}
    [part] = [p for p in with_settings(shelf.load(found.words[0]), own).weights if hasattr(p, "keywords")]
    assert part.keywords == {"upper": 2.5}
    assert not found.missing
    off = moved(tmp_path, "use_vllm: true\nvllm_importance_sampling_correction: false\nvllm_mode: server\n")
    assert off.words[0] == "grpo+token_mean"
    assert [row.partition("=")[0] for row in off.missing] == ["vllm_mode"]


def trl_loss(kind, beta, given, logp):
    """As grpo_trainer.py of TRL computes it for one device and one batch, from the rewards on."""
    fields, mask = given.batch.fields, given.batch["mask"]
    reward, group = fields["score"], fields["group"]
    centred = reward - groups.mean(reward, group)
    advantage = centred if kind == "dr_grpo" else centred / (groups.std(reward, group) + 1e-4)
    ratio = (logp - fields["old_logp"]).exp()
    loss = -torch.min(ratio * advantage[:, None], ratio.clamp(0.8, 1.2) * advantage[:, None])
    distance = fields["ref_logp"] - logp
    loss = loss + beta * (distance.exp() - distance - 1)
    if kind == "grpo":
        return ((loss * mask).sum(1) / mask.sum(1)).mean()
    return (loss * mask).sum() / (mask.sum() if kind == "dapo" else len(mask) * 8)


@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("kind", ["grpo", "dapo", "dr_grpo"])
def test_the_loss_is_trls(kind, beta, tmp_path):
    scale = "scale_rewards: none\n" if kind == "dr_grpo" else ""
    found = moved(tmp_path, f"loss_type: {kind}\nbeta: {beta}\n{scale}")
    assert not found.missing
    recipe = with_settings(shelf.load(found.words[0]), options(found))
    given = case(sizes=(4, 3, 4))
    logp = given.forward["logp"].clone().requires_grad_()
    batch = weigh(recipe, given.batch, run_fields(), {})
    ours = objective(recipe)({**batch.fields, **given.forward, "logp": logp})
    theirs = trl_loss(kind, beta, given, logp)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    one, two = torch.autograd.grad(ours, logp)[0], torch.autograd.grad(theirs, logp)[0]
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("x.py", "GRPOConfig(", "is not Python: line 1"),
        ("x.py", "print(1)", "makes no GRPOConfig"),
        ("x.yaml", "a: [", "is not YAML"),
        ("x.yaml", "- 1\n", "holds no settings"),
        ("x.yaml", "loss_type: mine\n", "loss_type is 'mine'"),
    ],
)
def test_a_file_that_says_nothing_is_refused(name, text, sentence, tmp_path):
    with pytest.raises(Refused, match=sentence):
        moved(tmp_path, text, name)
    with pytest.raises(Refused, match="cannot be read"):
        from_trl(tmp_path / "none.yaml")


# --- the pages ----------------------------------------------------------------------------------------------


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.S)


def test_the_page_shows_what_the_converter_prints(tmp_path):
    [config] = blocks("from-trl.md", "python")
    printed = moved(tmp_path, config, "train.py").told()
    assert printed in [block.rstrip("\n") for block in blocks("from-trl.md", "sh")]


@pytest.mark.parametrize("page", ["from-trl.md", "from-verl.md"])
def test_every_command_of_a_page_is_accepted(page):
    commands = [block.partition("\n\n")[0] for block in blocks(page, "sh") if block.startswith("whet train")]
    assert commands
    for command in commands:
        words = shlex.split(command.replace("\\\n", " "))
        settings = settings_of([w for w in words[3:] if w.startswith("--") and "." in w.partition("=")[0]])
        settings = {name: value for name, value in settings.items() if not name.startswith("task.")}
        with_settings(shelf.load(words[2]), settings)


@pytest.mark.parametrize("page", ["from-trl.md", "from-verl.md"])
def test_every_recipe_that_a_page_names_is_on_the_shelf(page):
    named = re.findall(r"(?m)^\| [^|]+ \| `([a-z0-9_+]+)` \|", (DOCS / page).read_text())
    assert len(named) > 5
    for expression in named:
        shelf.load(expression.lstrip("+"))
