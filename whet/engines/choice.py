"""Which program draws a run's responses: `engine` and `engine.*` among its settings."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from whet.refusal import Refused

NAMES = ("local", "vllm")
OF_VLLM = ("dtype", "publish_every", "memory")


@dataclass(frozen=True)
class Choice:
    """`engine` is local or vllm; the rest are the settings of `whet.engines.vllm.VLLM`, by the names engine.*."""

    engine: str = "local"
    dtype: str = ""
    publish_every: int = 1
    memory: float = 0.4

    def __post_init__(self) -> None:
        if self.engine not in NAMES:
            raise Refused(f"there is no engine {self.engine!r}: it is {' or '.join(NAMES)}.")
        if self.engine == "local" and any(getattr(self, name) != getattr(Choice, name) for name in OF_VLLM):
            raise Refused("engine.dtype, engine.publish_every and engine.memory are of vllm: add --engine vllm.")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> tuple["Choice", dict[str, Any]]:
        """The choice in a run's settings, and the settings that are of the recipe.

        >>> Choice.of({"engine": "vllm", "engine.publish_every": "4", "loss.high": "0.3"})
        (Choice(engine='vllm', dtype='', publish_every=4, memory=0.4), {'loss.high': '0.3'})
        """
        rest = {name: value for name, value in settings.items() if name.split(".")[0] != "engine"}
        kinds = {name: type(value) for name, value in asdict(cls()).items()}
        found: dict[str, Any] = {}
        for address in settings.keys() - rest.keys():
            name = address.removeprefix("engine.")
            if name not in kinds or address == "engine.engine":
                known = ", ".join(f"engine.{name}" for name in OF_VLLM)
                raise Refused(f"there is no setting {address!r} of an engine; there are {known}.")
            try:
                found[name] = kinds[name](settings[address])
            except ValueError:
                raise Refused(f"{address} is a number, so it cannot be {settings[address]!r}.") from None
        return cls(**found), rest

    def applied(self, engine: Any) -> Any:
        """The engine, with the sampler that was chosen."""
        if self.engine == "vllm":
            from whet.engines.vllm import VLLM

            engine.sampler = VLLM(engine, self.dtype, self.publish_every, self.memory)
        return engine
