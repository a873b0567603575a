"""Responses in Parquet: one row for each response, one list entry for each of its tokens, end token included.

    step, split, problem, level, answer, text
    prompt                 as the model saw it, with the special tokens of its chat
    score, reward          what the judge gave, and what the recipe made of it
    correct, finished, length
    pieces                 the text of each token
    advantage, weight      per token, as the update used them
    mask                   per token: False where `keep` left it out
    sampled_logp, sampled_entropy    nats, as the sampler saw it
    log_ratio              nats: log-probability at the learner's first pass (or old_logp) minus sampled_logp;
                           null where the mask is False, since nobody computed it there
    push                   the derivative of the loss by the token's logp: negative where the update makes it likelier

What a batch does not have is null: an evaluation has no advantage.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whet.runs.files import guarded

if TYPE_CHECKING:
    import pyarrow as pa

    from whet.batch import Batch

PER_TOKEN = ("advantage", "weight", "mask", "sampled_logp", "sampled_entropy", "log_ratio", "push")


def as_parquet(
    step: int,
    split: str,
    batch: "Batch",
    pieces: Sequence[Sequence[str]],
    seen: Mapping[str, Any],
    earlier: Path | None = None,
) -> bytes:
    """The bytes of a Parquet file of a batch, after the rows of an `earlier` file; `seen` has tensors [n t]."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table, file = _table(step, split, batch, pieces, seen), io.BytesIO()
    if earlier is not None:
        table = pa.concat_tables([_opened(earlier), table])
    pq.write_table(table, file, compression="zstd")
    return file.getvalue()


def read(path: Path, limit: int | None = None, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The first `limit` rows of such a file, with all columns or only some."""
    rows: list[dict[str, Any]] = _opened(path, columns).slice(0, limit).to_pylist()
    return rows


def _opened(path: Path, columns: Sequence[str] | None = None) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.parquet as pq

    with guarded("read", path):
        try:
            return pq.read_table(path, columns=None if columns is None else list(columns))
        except pa.ArrowInvalid as error:
            raise OSError(f"it is no whole Parquet file ({error})") from error


def _table(
    step: int, split: str, batch: "Batch", pieces: Sequence[Sequence[str]], seen: Mapping[str, Any]
) -> "pa.Table":
    import pyarrow as pa

    n = len(batch)
    lengths = batch["length"].tolist()
    short = [i for i, (words, length) in enumerate(zip(pieces, lengths, strict=True)) if len(words) != length]
    if short:
        i = short[0]
        raise ValueError(f"Response {i} has {lengths[i]} tokens, but {len(pieces[i])} pieces of text.")
    per_token = _per_token(batch, seen, lengths)
    return pa.table(
        {
            "step": pa.array([step] * n, pa.int64()),
            "split": pa.array([split] * n, pa.string()),
            "problem": pa.array([p.id for p in batch.problems], pa.string()),
            "level": pa.array([p.level for p in batch.problems], pa.int64()),
            "prompt": pa.array([p.prompt for p in batch.problems], pa.string()),
            "answer": pa.array([p.answer for p in batch.problems], pa.string()),
            "text": pa.array([_utf8(text) for text in batch.texts], pa.string()),
            **{name: _per_response(batch, name, pa.float32()) for name in ("score", "reward")},
            **{name: _per_response(batch, name, pa.bool_()) for name in ("correct", "finished")},
            "length": pa.array(lengths, pa.int64()),
            "pieces": pa.array([[_utf8(piece) for piece in words] for words in pieces], pa.list_(pa.string())),
            **per_token,
        }
    )


def _utf8(text: str) -> str:
    """A token may end in the middle of a character; lone surrogates cannot be stored."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _per_response(batch: "Batch", name: str, kind: "pa.DataType") -> "pa.Array":
    import pyarrow as pa

    return pa.array(batch[name].tolist(), kind) if name in batch.fields else pa.nulls(len(batch), kind)


def _per_token(batch: "Batch", seen: Mapping[str, Any], lengths: Sequence[int]) -> "dict[str, pa.Array]":
    """The columns `PER_TOKEN`, each cut from [n t] to the tokens that are there."""
    import numpy as np
    import pyarrow as pa

    values = {name: batch[name] for name in PER_TOKEN if name in batch.fields}
    logp = seen.get("logp", batch.fields.get("old_logp"))
    if logp is not None and "sampled_logp" in values:
        values["log_ratio"] = logp - values["sampled_logp"]
    if "push" in seen:
        values["push"] = seen["push"]

    width = batch["mask"].shape[1]
    there = np.arange(width) < np.asarray(lengths, dtype=np.int64)[:, None]
    offsets = pa.array(np.concatenate([[0], there.sum(1).cumsum()]), pa.int32())
    columns = {}
    for name in PER_TOKEN:
        kind = pa.bool_() if name == "mask" else pa.float32()
        if name not in values:
            columns[name] = pa.nulls(len(batch), pa.list_(kind))
            continue
        x = values[name].detach()
        flat = (x if name == "mask" else x.float()).cpu().numpy()[there]
        absent = ~batch["mask"].cpu().numpy()[there] | np.isnan(flat) if name == "log_ratio" else None
        columns[name] = pa.ListArray.from_arrays(offsets, pa.array(flat, kind, mask=absent))
    return columns
