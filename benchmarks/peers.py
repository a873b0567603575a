"""One measurement of a peer: python benchmarks/peers.py PEER SETTING THREADS SEED. Runs in the peers' environment."""

import sys
import tempfile
import time

import torch
import work


def trl(setting: str, seed: int) -> None:
    """One step of TRL's GRPOTrainer, the second of two: same model, prompts, rewards, lengths, one update."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    rows = work.prompts(setting, seed)
    each, tokens = (work.RESPONSES, 96) if setting == "A" else (work.LONG["responses"], work.LONG["max_tokens"])
    lengths: list[int] = []

    def judge(completions: list[str], answer: list[str], completion_ids: list[list[int]], **_: object) -> list[float]:
        lengths.append(sum(map(len, completion_ids)))
        return [work.reward(setting, text, a) for text, a in zip(completions, answer, strict=True)]

    class Clock(TrainerCallback):
        times: list[float] = []  # noqa: RUF012

        def on_step_begin(self, *_: object, **__: object) -> None:
            self.times.append(time.perf_counter())

        def on_step_end(self, *_: object, **__: object) -> None:
            self.times.append(time.perf_counter())

    steps = 2 if setting == "A" else 1
    config = GRPOConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=len(rows) * each, num_generations=each,
        max_completion_length=tokens, max_steps=steps, use_cpu=True, bf16=False, beta=0.0, temperature=1.0,
        top_p=1.0, report_to=[], save_strategy="no", logging_strategy="no", seed=seed, gradient_checkpointing=False,
        learning_rate=1e-5, disable_tqdm=True,
    )  # fmt: skip
    model = str(work.ROOT / "whet/models/base") if setting == "A" else str(work.large())
    clock = Clock()
    trainer = GRPOTrainer(
        model=model, args=config, reward_funcs=judge, callbacks=[clock],
        train_dataset=Dataset.from_list([{"prompt": r["prompt"], "answer": r["answer"]} for r in rows]),
    )  # fmt: skip
    trainer.train()
    work.tell(clock.times[-1] - clock.times[-2], lengths[-1])


def generate(setting: str, seed: int) -> None:
    """Hugging Face `generate` on the same prompts, as often and as long."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

    place = work.ROOT / "whet/models/base" if setting == "A" else work.large()
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32),
        AutoTokenizer.from_pretrained(place),
    )
    each, tokens = (work.RESPONSES, 96) if setting == "A" else (work.LONG["responses"], work.LONG["max_tokens"])
    rows = [row["prompt"] for row in work.prompts(setting, seed) for _ in range(each)]
    inputs = tokenizer(rows, return_tensors="pt", padding=True, padding_side="left", return_token_type_ids=False)
    how = {"do_sample": True, "top_k": 0, "top_p": 1.0, "temperature": 1.0, "pad_token_id": tokenizer.pad_token_id}
    set_seed(seed)
    with torch.inference_mode():
        model.generate(**{k: v[:4] for k, v in inputs.items()}, max_new_tokens=8, **how)
        began = time.perf_counter()
        out = model.generate(**inputs, max_new_tokens=tokens, **how)
    seconds = time.perf_counter() - began
    made = out[:, inputs["input_ids"].shape[1] :]
    ended = (made == tokenizer.eos_token_id).int().cumsum(1)
    work.tell(seconds, int(((ended == 0) | ((ended == 1) & (made == tokenizer.eos_token_id))).sum()))


def vllm(setting: str, seed: int) -> None:
    """vLLM's build for processors on the same prompts, as often and as long."""
    from vllm import LLM, SamplingParams

    place = work.ROOT / "whet/models/base" if setting == "A" else work.large()
    each, tokens = (work.RESPONSES, 96) if setting == "A" else (work.LONG["responses"], work.LONG["max_tokens"])
    llm = LLM(model=str(place), dtype="float32", max_model_len=512, seed=seed, disable_log_stats=True)
    rows = [row["prompt"] for row in work.prompts(setting, seed)]
    how = SamplingParams(n=each, temperature=1.0, top_p=1.0, max_tokens=tokens, logprobs=0, seed=seed)
    llm.generate(rows[:2], SamplingParams(n=2, max_tokens=8), use_tqdm=False)
    began = time.perf_counter()
    out = llm.generate(rows, how, use_tqdm=False)
    work.tell(time.perf_counter() - began, sum(len(one.token_ids) for request in out for one in request.outputs))


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[3]))
    {"trl": trl, "generate": generate, "vllm": vllm}[sys.argv[1]](sys.argv[2], int(sys.argv[4]))
