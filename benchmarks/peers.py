"""A peer as a worker: python benchmarks/peers.py trl|generate|vllm SETTING [SIZE]. Runs in the peers' environment."""

import os
import sys
import tempfile
import time

import torch
import work


def trl(setting: str, size: str) -> None:
    """TRL's GRPOTrainer: same model, prompts, rewards and lengths; one update for each batch, no reference model."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    todo, rows = work.sized(setting, size), work.prompts(setting)
    seen: dict[str, float] = {}

    def judge(completions: list[str], answer: list[str], completion_ids: list[list[int]], **_: object) -> list[float]:
        scores = [work.reward(setting, text, a) for text, a in zip(completions, answer, strict=True)]
        seen.update(tokens=sum(map(len, completion_ids)), score=sum(scores) / len(scores))
        return scores

    class Turns(TrainerCallback):
        """Step 0 is the warm-up; before each other step, wait for the turn."""

        began = 0.0

        def on_step_begin(self, args: object, state: object, control: object, **_: object) -> None:
            if state.global_step == 1:  # type: ignore[attr-defined]
                self.turns = work.turns()
            if state.global_step and next(self.turns, None) is None:  # type: ignore[attr-defined]
                os._exit(0)  # nobody asks any more
            self.began = time.perf_counter()

        def on_step_end(self, args: object, state: object, control: object, **_: object) -> None:
            if state.global_step > 1:  # type: ignore[attr-defined]
                work.tell(time.perf_counter() - self.began, **seen)

    batch = todo.prompts * todo.responses
    at_once, rounded = min(todo.at_once or batch, batch), todo.dtype == "bfloat16"
    config = GRPOConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=at_once,
        gradient_accumulation_steps=batch // at_once,
        num_generations=todo.responses, max_completion_length=todo.tokens, max_steps=10_000, shuffle_dataset=False,
        use_cpu=True, bf16=rounded, fp16=False, model_init_kwargs={"dtype": todo.dtype}, gradient_checkpointing=False,
        beta=0.0, temperature=1.0, top_p=1.0, top_k=0, learning_rate=todo.lr, lr_scheduler_type="constant",
        weight_decay=0.0, max_grad_norm=1.0, report_to=[], save_strategy="no", logging_strategy="no", disable_tqdm=True,
        seed=work.seed(),
    )  # fmt: skip
    GRPOTrainer(
        model=str(work.model(todo.model)), args=config, reward_funcs=judge, callbacks=[Turns()],
        train_dataset=Dataset.from_list([{"prompt": row["prompt"], "answer": row["answer"]} for row in rows]),
    ).train()  # fmt: skip


def generate(setting: str, size: str) -> None:
    """Hugging Face `generate`: all responses as one batch, each prompt repeated, as its own documentation does it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    todo, rows = work.sized(setting, size), work.prompts(setting)
    place = work.model(todo.model)
    model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(place, padding_side="left")
    how = {"do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": 1.0, "pad_token_id": tokenizer.pad_token_id}

    def take(turn: int) -> dict[str, float]:
        texts = [row["prompt"] for row in work.turn_of(rows, todo, turn)]
        inputs = tokenizer(texts, return_tensors="pt", padding=True, return_token_type_ids=False)
        with torch.inference_mode():
            out = model.generate(**inputs, max_new_tokens=todo.tokens, num_return_sequences=todo.responses, **how)
        made = out[:, inputs["input_ids"].shape[1] :]
        ended = (made == tokenizer.eos_token_id).int().cumsum(1)
        return {"tokens": int((ended == 0).sum() + (ended[:, -1] > 0).sum())}

    work.take_turns(take)


def vllm(setting: str, size: str) -> None:
    """vLLM's build for processors, all responses at once."""
    from vllm import LLM, SamplingParams

    todo, rows = work.sized(setting, size), work.prompts(setting)
    llm = LLM(model=str(work.model(todo.model)), dtype="float32", max_model_len=512, disable_log_stats=True)

    def take(turn: int) -> dict[str, float]:
        texts = [row["prompt"] for row in work.turn_of(rows, todo, turn)]
        how = SamplingParams(n=todo.responses, temperature=1.0, top_p=1.0, max_tokens=todo.tokens, logprobs=0)
        out = llm.generate(texts, how, use_tqdm=False)
        return {"tokens": sum(len(one.token_ids) for request in out for one in request.outputs)}

    work.take_turns(take)


if __name__ == "__main__":
    name, setting, size = [*sys.argv[1:], ""][:3]
    if name != "vllm":  # which has its own way, by OMP_NUM_THREADS
        torch.set_num_threads(work.threads())
    {"trl": trl, "generate": generate, "vllm": vllm}[name](setting, size)
