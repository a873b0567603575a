"""What TRL's GRPOTrainer does in its first update, and what GRPOConfig sets by default: `python golden/trl_update.py`.

It needs TRL beside whet (`pip install trl==1.16.0`, which is none of whet's own packages). The model's weights are a
formula, so that nothing but the responses that TRL drew, its gradient and its step has to be kept.
tests/parity/test_trl_update.py makes the same update with whet.
"""

import json
import sys
import tempfile
from pathlib import Path
from string import ascii_lowercase, digits

import torch
from transformers import LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).parent
RATE, CLIP, GENERATIONS = 1e-3, 1.0, 4
PROMPTS = ("abc", "hello", "12", "trl")
LOSSES = {"grpo": {}, "dapo": {}, "dr_grpo": {"scale_rewards": "none"}}


def model(tokenizer):
    """A Llama of 18 thousand weights, each a cosine of its place."""
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    made = LlamaForCausalLM(config)
    with torch.no_grad():
        for nth, (name, x) in enumerate(made.named_parameters()):
            wave = torch.cos(0.37 * (nth + 1) * torch.arange(1.0, x.numel() + 1, dtype=torch.float64) ** 1.1)
            x.copy_((1.0 + 0.1 * wave if "norm" in name else 0.35 * wave).view(x.shape))
    return made


def reward(ids):
    """Some number that differs between responses: the share of even token ids."""
    return sum(i % 2 == 0 for i in ids) / max(len(ids), 1)


def summary(tensors):
    """Of each tensor its norm and its product with a wave, which together tell another one apart."""
    found = {}
    for name, x in tensors.items():
        flat = x.detach().double().flatten()
        wave = torch.cos(0.71 * torch.arange(1.0, len(flat) + 1, dtype=torch.float64))
        found[name] = [float(flat.norm()), float(flat @ wave)]
    return found


def trained(kind, more, words, place):
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    kept = {}

    class Recorded(GRPOTrainer):
        def _compute_loss(self, policy, inputs):
            loss = super()._compute_loss(policy, inputs)
            kept["inputs"], kept["loss"] = inputs, float(loss)
            return loss

        def training_step(self, policy, *rest, **named):
            kept["before"] = {name: x.detach().clone() for name, x in policy.named_parameters()}
            loss = super().training_step(policy, *rest, **named)
            kept["gradient"] = summary({name: x.grad for name, x in policy.named_parameters()})
            return loss

    config = GRPOConfig(
        output_dir=str(place), loss_type=kind, num_generations=GENERATIONS,
        per_device_train_batch_size=GENERATIONS * len(PROMPTS), max_completion_length=8, learning_rate=RATE,
        lr_scheduler_type="constant", beta=0.0, max_grad_norm=CLIP, optim="adamw_torch", weight_decay=0.0, max_steps=1,
        bf16=False, gradient_checkpointing=False, report_to=[], save_strategy="no", logging_strategy="no", use_cpu=True,
        seed=0, disable_dropout=True, shuffle_dataset=False, **more,
    )  # fmt: skip
    trainer = Recorded(
        model=model(words), args=config, processing_class=words,
        reward_funcs=lambda completion_ids, **_: [reward(ids) for ids in completion_ids],
        train_dataset=Dataset.from_dict({"prompt": list(PROMPTS)}),
    )  # fmt: skip
    trainer.train()
    given, after = kept["inputs"], dict(trainer.model.named_parameters())

    def rows(name):
        return [[i for i, on in zip(ids, mask, strict=True) if on] for ids, mask in
                zip(given[f"{name}_ids"].tolist(), given[f"{name}_mask"].tolist(), strict=True)]

    return {
        "prompts": rows("prompt"), "responses": rows("completion"), "advantages": given["advantages"].tolist(),
        "loss": kept["loss"], "gradient": kept["gradient"],
        "step": summary({name: after[name].detach() - x for name, x in kept["before"].items()}),
    }


def defaults():
    """What GRPOConfig sets where nobody says otherwise, those of transformers' TrainingArguments included."""
    from dataclasses import MISSING, fields

    from trl import GRPOConfig

    kinds = (bool, int, float, str, type(None))
    return {f.name: f.default for f in fields(GRPOConfig) if f.default is not MISSING and type(f.default) in kinds}


def main():
    from importlib.metadata import version

    from whet.models.tiny import characters

    words = characters(digits + ascii_lowercase)
    with tempfile.TemporaryDirectory() as place:
        cases = {kind: trained(kind, more, words, place) for kind, more in LOSSES.items()}
    told = {
        "about": "One update of TRL's GRPOTrainer from weights that are a formula; golden/trl_update.py made it.",
        "versions": {name: version(name) for name in ("trl", "torch", "transformers")},
        "lr": RATE, "clip_norm": CLIP, "defaults": defaults(), "cases": cases,
    }
    (HERE / "trl_update.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
