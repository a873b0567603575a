"""Moving in from TRL: a GRPOConfig, as YAML or as Python, read into the whet command that trains the same.

TRL is not imported and the file is not run: Python is read as a syntax tree. Names and defaults are those of TRL 1.16
(trl/trainer/grpo_config.py); a test compares the defaults with what golden/trl_update.py recorded.
"""

import ast
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whet.refusal import Refused

DEFAULTS: dict[str, Any] = {
    "loss_type": "dapo", "scale_rewards": "group", "importance_sampling_level": "token", "beta": 0.0, "epsilon": 0.2,
    "num_generations": 8, "temperature": 1.0, "max_completion_length": 512, "learning_rate": 1e-6, "num_iterations": 1,
    "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "max_grad_norm": 1.0, "seed": 42,
    "gradient_checkpointing": True,
}  # fmt: skip
ONLY_LOOKS = frozenset({
    "log_completions", "num_completions_to_print", "log_unique_prompts", "log_multimodal", "logging_steps",
    "logging_dir", "logging_first_step", "logging_strategy", "push_to_hub", "hub_model_id", "hub_strategy",
    "run_name", "disable_tqdm", "dataloader_num_workers", "dataloader_pin_memory", "remove_unused_columns",
    "log_completions_hub_repo", "save_strategy", "save_total_limit", "eval_strategy", "do_eval", "do_train",
    "output_dir", "overwrite_output_dir", "ddp_timeout", "shuffle_dataset", "dataloader_drop_last",
    "disable_dropout", "tf32", "optim", "per_device_eval_batch_size",
    "attn_implementation", "num_generations_eval", "trl_config", "accelerate_config", "dataset_config",
    "dataset_train_split", "dataset_test_split", "ds3_gather_for_generation", "model_init_kwargs", "bf16",
    "fp16", "dtype", "torch_dtype", "use_peft", "pad_to_multiple_of", "cache_implementation", "cast_lm_head_to_fp32",
    "use_transformers_continuous_batching", "transformers_continuous_batching_config", "use_transformers_paged",
    "vllm_model_impl", "vllm_server_base_url", "vllm_server_host", "vllm_server_port", "vllm_server_timeout",
    "vllm_group_port", "gradient_checkpointing_kwargs", "log_level", "model_revision", "hub_model_revision",
    "dataset_configs", "vllm_device", "lr_scheduler_kwargs", "benchmarks", "wandb_entity", "wandb_project",
})  # fmt: skip
NO_EQUIVALENT = {
    "delta": "clipping the ratio of bad responses from above is the loss `dual_clip`, which sets the same stage as "
    "the loss here: write a recipe of your own with loss=partial(dual_clip, ...)",
    "num_train_epochs": "whet counts updates: set --steps to epochs × problems / prompts of a step",
    "max_prompt_length": "prompts are never cut: one that does not fit is refused",
    "chat_template": "write it into chat_template.jinja in the model's folder",
    "reward_weights": "one judge returns the weighted sum, or a recipe has several reward parts",
    "sync_ref_model": "the reference stays at the start of the run",
    "ref_model_mixup_alpha": "the reference stays at the start of the run",
    "ref_model_sync_steps": "the reference stays at the start of the run",
    "vllm_mode": "vLLM runs in the same process, as with `colocate`",
    "vllm_tensor_parallel_size": "vLLM runs on one GPU",
    "vllm_max_model_length": "as long as the model's config says",
    "vllm_structured_outputs_regex": "responses are drawn from the whole distribution",
    "generation_kwargs": "responses are drawn from the whole distribution",
    "router_aux_loss_coef": "a router has no loss of its own",
    "max_tool_calling_iterations": "a response calls no tools",
    "top_p": "responses are drawn from the whole distribution",
    "top_k": "responses are drawn from the whole distribution",
    "min_p": "responses are drawn from the whole distribution",
    "repetition_penalty": "responses are drawn from the whole distribution",
    "warmup_ratio": "the learning rate is constant",
    "warmup_steps": "the learning rate is constant",
    "weight_decay": "AdamW without weight decay",
    "use_bias_correction_kl": "the k3 term has no importance weight",
    "top_entropy_quantile": "no recipe on the shelf keeps a quantile of entropy",
    "entropy_coef": "see `whet list entropy` for what papers do instead",
    "use_adaptive_entropy": "`whet show adaptive_entropy_control`",
    **dict.fromkeys(
        ("entropy_coef_min", "entropy_coef_max", "entropy_coef_delta", "entropy_target"),
        "`whet show adaptive_entropy_control`",
    ),
}
OF_VLLM = frozenset({
    "use_vllm", "vllm_gpu_memory_utilization", "vllm_enable_sleep_mode", "vllm_importance_sampling_correction",
    "vllm_importance_sampling_mode", "vllm_importance_sampling_clip_max", "vllm_importance_sampling_clip_min",
    "vllm_importance_sampling_cap",
})  # fmt: skip


@dataclass
class Moved:
    """The command, word by word; what is different all the same; what has no equivalent."""

    words: list[str] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def told(self) -> str:
        """The command, ready to be pasted, and the rest as comments."""
        words = " ".join(map(shlex.quote, self.words)).replace(" --", "\n--").split("\n")
        lines = [" \\\n  ".join(["whet train " + words[0], *words[1:]])]
        for head, rows in (("Different all the same:", self.differs), ("Without an equivalent:", self.missing)):
            lines += ["", f"# {head}", *(f"#   {row}" for row in rows)] if rows else []
        return "\n".join(lines)


def from_trl(path: Path) -> Moved:
    """The whet command for a TRL configuration."""
    given = _read(path)
    config = {**DEFAULTS, **given}
    moved = Moved([recipe := _recipe(config)])
    _data(moved, config)
    _batch(moved, config)
    _settings(moved, config, recipe)
    _machine(moved, config, given)
    if config.get("use_vllm"):
        _vllm(moved, config)
    known = {*DEFAULTS, *ONLY_LOOKS, *_MAPPED, *OF_VLLM}
    for name in sorted(set(given) - known):
        if name == "num_train_epochs" and config.get("max_steps", -1) > 0:
            continue  # max_steps overrides it
        if name in NO_EQUIVALENT:
            if given[name] and given[name] != NEUTRAL.get(name):
                moved.missing.append(f"{name}={given[name]!r}: {NO_EQUIVALENT[name]}.")
        else:
            moved.missing.append(f"{name}={given[name]!r}: nothing like it here.")
    return moved


NEUTRAL = {
    "top_p": 1.0,
    "repetition_penalty": 1.0,
    "top_entropy_quantile": 1.0,
    "vllm_mode": "colocate",
    "vllm_tensor_parallel_size": 1,
}  # TRL's defaults, which do nothing
_MAPPED = frozenset({
    "trust_remote_code",
    "model_name_or_path", "model", "dataset_name", "reward_funcs", "max_steps", "epsilon_high",
    "mask_truncated_completions", "multi_objective_aggregation", "off_policy_mask_threshold",
    "sapo_temperature_pos", "sapo_temperature_neg", "vespo_k_pos", "vespo_lambda_pos", "vespo_k_neg",
    "vespo_lambda_neg", "steps_per_generation", "generation_batch_size", "chat_template_kwargs", "lora_r",
    "lora_alpha", "lora_target_modules", "lora_dropout", "system_prompt", "report_to", "lr_scheduler_type",
    "eval_steps", "save_steps",
})  # fmt: skip


# --- the recipe -------------------------------------------------------------------------------------------


def _recipe(config: Mapping[str, Any]) -> str:
    """The recipes whose sum is the loss, advantage and masks of a configuration."""
    kind, sequence = config["loss_type"], config["importance_sampling_level"] == "sequence"
    names = {"grpo": "grpo", "dapo": "grpo+token_mean", "bnpo": "grpo+token_mean", "dr_grpo": "dr_grpo"}
    expression = names.get(kind, kind)
    if expression not in (*names.values(), "cispo", "sapo", "luspo", "vespo"):
        raise Refused(f"loss_type is {kind!r}, which TRL does not have: it is {', '.join(names)}, cispo, sapo, ….")
    if sequence and kind in names:
        expression = {"grpo": "gspo", "dr_grpo": "dr_grpo+gspo"}.get(kind, "gspo+token_mean")
    if config.get("multi_objective_aggregation") == "normalize_then_sum":
        expression += "+gdpo"
    if config.get("off_policy_mask_threshold") is not None:
        expression += "+opsm"
    if config.get("use_vllm"):
        expression += {"token_truncate": "+rollout_is", "sequence_truncate": "+sequence_is"}.get(
            _correction(config), ""
        )
    if config.get("mask_truncated_completions"):
        expression += "+overlong_filter"
    return expression + "+k3_loss" if config["beta"] and "penalties.k3.beta" not in _known(expression) else expression


def _correction(config: Mapping[str, Any]) -> str:
    """How TRL corrects for vLLM's own probabilities; empty where it does not."""
    given = config.get("vllm_importance_sampling_correction", True)
    return str(config.get("vllm_importance_sampling_mode", "sequence_mask")) if given else ""


def _known(expression: str) -> dict[str, Any]:
    from whet.settings import settings
    from whet.shelf import load

    return settings(load(expression))


def _settings(moved: Moved, config: Mapping[str, Any], recipe: str) -> None:
    """Settings by their addresses, where the recipe has them."""
    known = _known(recipe)
    high = config.get("epsilon_high")
    wanted = {
        "update.lr": config["learning_rate"],
        "update.clip_norm": config["max_grad_norm"],
        "update.epochs": config["num_iterations"],
        "loss.low": config["epsilon"],
        "loss.high": config["epsilon"] if high is None else high,
        "loss.delta": config.get("off_policy_mask_threshold"),
        "loss.positive": config.get("sapo_temperature_pos"),
        "loss.negative": config.get("sapo_temperature_neg"),
        "loss.up_power": config.get("vespo_k_pos"),
        "loss.up_decay": config.get("vespo_lambda_pos"),
        "loss.down_power": config.get("vespo_k_neg"),
        "loss.down_decay": config.get("vespo_lambda_neg"),
        "penalties.k3.beta": config["beta"],
        "advantage.epsilon": 1e-4,  # TRL's own
    }
    if config["loss_type"] == "cispo":
        wanted["loss.low"] = None  # TRL bounds the weight of CISPO from above only
    moved.words += [f"--{name}={value}" for name, value in wanted.items() if value is not None and name in known]
    scale = config["scale_rewards"]
    centred = "advantage.epsilon" not in known
    if scale == "batch":
        moved.missing.append("scale_rewards='batch': no recipe on the shelf divides by the batch's deviation.")
    elif centred != (scale in (False, "none")):
        has = "does not divide" if centred else "divides"
        moved.missing.append(
            f"scale_rewards={scale!r} with loss_type={config['loss_type']!r}: {recipe} {has} by the group's standard "
            "deviation; a recipe of your own sets advantage= to dr_grpo.centred or grpo.z_score."
        )
    if config["loss_type"] == "bnpo":
        moved.differs.append("bnpo divides by the tokens of each device's batch; token_mean by those of the whole one.")


# --- data, batch, machine ---------------------------------------------------------------------------------


def _data(moved: Moved, config: Mapping[str, Any]) -> None:
    model = config.get("model_name_or_path") or config.get("model")
    moved.words += ["--model", str(model).rpartition("/")[2] if model else "MODEL"]
    if model and not Path(str(model)).is_dir():
        moved.differs.append(
            f"whet opens folders only: hf download {model} --local-dir {str(model).rpartition('/')[2]}."
        )
    data = config.get("dataset_name")
    moved.words += ["--task", str(data).rpartition("/")[2] if data else "DATA"]
    if data and not Path(str(data)).exists():
        local = str(data).rpartition("/")[2]
        moved.differs.append(f"so it does with data: hf download {data} --repo-type dataset --local-dir {local}.")
    rewards = config.get("reward_funcs")
    names = rewards if isinstance(rewards, list) else [rewards] if rewards else []
    known = {"accuracy_reward": "math"}
    moved.words += ["--judge", known.get(names[0], f"my_judge.py:{names[0]}") if names else "my_judge.py:score"]
    if len(names) > 1:
        moved.missing.append(
            f"reward_funcs={names}: whet takes one judge; return the sum, or use several reward parts."
        )
    moved.differs.append(
        "a TRL reward takes lists (completions, **columns) and returns a list; a whet judge takes one response, by the "
        "names of its parameters (response, answer, your columns), and returns a number."
    )
    moved.words += ["--max-tokens", str(config["max_completion_length"])]


def _batch(moved: Moved, config: Mapping[str, Any]) -> None:
    """Prompts and responses of an update, on one device."""
    each, accumulated = config["per_device_train_batch_size"], config["gradient_accumulation_steps"]
    held = config.get("steps_per_generation")
    total = config.get("generation_batch_size") or each * (held or accumulated)
    generations = config["num_generations"]
    updates = max(total // (each * accumulated), 1)
    moved.words += [f"--choose.prompts={max(total // generations, 1)}", f"--sample.responses={generations}"]
    moved.words += [f"--update.minibatches={updates}", f"--sample.temperature={config['temperature']}"]
    left = f" ({total} is no multiple of num_generations={generations}, so it is fewer here)" * (
        total % generations > 0
    )
    moved.differs.append(
        f"{total} responses are drawn at once{left}, as on one device: with N devices multiply --choose.prompts by N."
    )


def _machine(moved: Moved, config: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    if config.get("max_steps", -1) > 0:
        moved.words += ["--steps", str(config["max_steps"])]
    moved.words += ["--seed", str(config["seed"])]
    if config.get("eval_steps"):
        moved.words += ["--eval-every", str(config["eval_steps"])]
    if config.get("use_peft") or "lora_r" in given:
        _lora(moved, config)
    if not any(config.get(name) for name in ("fp16",)) and config.get("bf16", True):
        moved.words += ["--dtype", "bfloat16"]
    if config["gradient_checkpointing"]:
        moved.words.append("--recompute")
    moved.words += ["--trust-remote-code"] * bool(config.get("trust_remote_code"))
    _chat(moved, config)
    reports = config.get("report_to")
    named = [reports] if isinstance(reports, str) else reports or []
    known = [name for name in named if name in ("tensorboard", "wandb", "trackio")]
    moved.words += ["--track", ",".join(known)] if known else []
    schedule = config.get("lr_scheduler_type", "linear")
    if schedule != "constant":
        moved.differs.append(f"TRL's learning rate decays ({schedule}); whet's is constant.")
    moved.differs.append("weights are kept in float32 and computed with in bfloat16; TRL keeps them as it loads them.")


def _lora(moved: Moved, config: Mapping[str, Any]) -> None:
    targets = config.get("lora_target_modules")
    said = [f"r={config.get('lora_r', 16)}", f"alpha={config.get('lora_alpha', 32)}"]
    if targets and targets != "all-linear":
        said.append("targets=" + "|".join([targets] if isinstance(targets, str) else targets))
    moved.words += ["--lora", ",".join(said)]
    if config.get("lora_dropout"):
        moved.missing.append(
            f"lora_dropout={config['lora_dropout']}: dropout is off, so that sampler and learner agree."
        )


def _chat(moved: Moved, config: Mapping[str, Any]) -> None:
    if config.get("system_prompt"):
        moved.words += ["--system", str(config["system_prompt"])]
    thinking = (config.get("chat_template_kwargs") or {}).get("enable_thinking")
    if thinking is not None:
        moved.words += ["--thinking", "on" if thinking else "off"]


def _vllm(moved: Moved, config: Mapping[str, Any]) -> None:
    """Drawing with vLLM, and what TRL then does about the gap between the engines unless it is told not to."""
    moved.words += ["--engine", "vllm", f"--engine.memory={config.get('vllm_gpu_memory_utilization', 0.3)}"]
    mode, low, high = (
        _correction(config), config.get("vllm_importance_sampling_clip_min"),
        config.get("vllm_importance_sampling_clip_max", config.get("vllm_importance_sampling_cap", 3.0)),
    )  # fmt: skip
    parts = {"token_truncate": "truncated", "sequence_truncate": "sequence_truncated"}
    if mode in parts and high is not None:
        moved.words += [f"--weights.{parts[mode]}.upper={high}"]
    elif mode:
        part = "rollout_is.masked" if mode == "token_mask" else "sequence_is.sequence_masked"
        moved.missing.append(
            f"vllm_importance_sampling_mode={mode!r} with the bounds {low} and {high}, which TRL takes unless it is "
            f"told otherwise: a recipe of your own with weights=({part},); on the shelf are rollout_is and sequence_is."
        )


# --- reading ----------------------------------------------------------------------------------------------


def _read(path: Path) -> dict[str, Any]:
    """What the file sets, by name; a value that is no literal is its source text."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{path} cannot be read: {error}.") from None
    if Path(path).suffix == ".py":
        return _python(path, text)
    import yaml

    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise Refused(f"{path} is not YAML: {str(error).splitlines()[0]}.") from None
    if not isinstance(found, dict):
        raise Refused(f"{path} holds no settings: write name: value on each line, as TRL's --config reads them.")
    # YAML reads 1e-6 as text; TRL's parser reads it as a number
    return {name: _number(value) for name, value in found.items()}


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _python(path: Path, text: str) -> dict[str, Any]:
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise Refused(f"{path} is not Python: line {error.lineno}: {error.msg}.") from None
    calls = {_name(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    if "GRPOConfig" not in calls:
        raise Refused(f"{path} makes no GRPOConfig(...): pass the file that does, or a YAML file of its settings.")
    found = {word.arg: _value(word.value) for word in calls["GRPOConfig"].keywords if word.arg}
    trainer = calls.get("GRPOTrainer")
    for word in trainer.keywords if trainer else []:
        if word.arg in ("model", "reward_funcs"):
            found[word.arg] = _value(word.value)
    if "LoraConfig" in calls:
        names = {"r": "lora_r", "lora_alpha": "lora_alpha", "target_modules": "lora_target_modules",
                 "lora_dropout": "lora_dropout"}  # fmt: skip
        found["use_peft"] = True
        found |= {names[w.arg]: _value(w.value) for w in calls["LoraConfig"].keywords if w.arg in names}
    if "load_dataset" in calls and calls["load_dataset"].args:
        found["dataset_name"] = _value(calls["load_dataset"].args[0])
    return found


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _value(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        if isinstance(node, ast.List):
            return [_value(each) for each in node.elts]
        return ast.unparse(node)
