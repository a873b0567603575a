"""Prompts in token ids: through the model's chat template where it has one, as plain text otherwise.

Responses are token ids from the sampler to the learner; they are decoded for judges and readers only.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from whet.models.load import first_line
from whet.refusal import Refused

Messages = Sequence[dict[str, Any]]
MARK = "8e2f"  # stands for a response while the template is asked what follows one


class Formatter:
    """Prompt → token ids that the response continues. `system` opens every chat that does not open with one itself."""

    def __init__(self, tokenizer: Any, system: str = "", thinking: str = "") -> None:
        self.tokenizer, self.system = tokenizer, system
        # Llama and Gemma base models were never without their first token; most others have none.
        opening = _ids(tokenizer(""))
        self.opening = opening[:1] if opening and opening[0] == tokenizer.bos_token_id else ()
        self.options = {"enable_thinking": thinking == "on"} if thinking else {}
        template = str(tokenizer.chat_template or "")
        if system and not template:
            raise Refused("the model has no chat template, so --system has no place: put its text into the prompts.")
        if thinking and "enable_thinking" not in template:
            raise Refused("the model's chat template knows no enable_thinking: leave --thinking out.")

    def __call__(self, prompt: str | Messages) -> tuple[int, ...]:
        """The token ids of a text, or of a chat that ends with the user's turn.

        Plain text is tokenized without special tokens, except the begin token of a tokenizer that always sets one.
        """
        if self.tokenizer.chat_template:
            return _ids(self._templated(self.messages(prompt), add_generation_prompt=True, tokenize=True))
        if isinstance(prompt, str):
            return (*self.opening, *self.plain(prompt))
        raise Refused("the prompts are chats and the model has no chat template: write them as plain text.")

    def messages(self, prompt: str | Messages) -> list[dict[str, Any]]:
        """The whole chat that the template is given."""
        chat = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        if self.system and not (chat and chat[0].get("role") == "system"):
            chat.insert(0, {"role": "system", "content": self.system})
        return chat

    def plain(self, text: str) -> tuple[int, ...]:
        """A text in token ids, without special tokens."""
        return _ids(self.tokenizer(text, add_special_tokens=False))

    @cached_property
    def end_of_turn(self) -> int | None:
        """The special token that the template writes behind a response; None without a template or such a token.

        Many chat models end a turn with another token than the one that ends a text.
        """
        if not self.tokenizer.chat_template:
            return None
        chat = [*self.messages("a"), {"role": "assistant", "content": MARK}]
        behind = self.plain(str(self._templated(chat, tokenize=False)).rpartition(MARK)[2])
        special = {*self.tokenizer.all_special_ids, *self.tokenizer.added_tokens_decoder}
        return behind[0] if behind and behind[0] in special else None

    def _templated(self, chat: list[dict[str, Any]], **how: Any) -> Any:
        from jinja2 import TemplateError

        try:
            return self.tokenizer.apply_chat_template(chat, **how, **self.options)
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
            roles = ", ".join(str(message.get("role")) for message in chat)
            raise Refused(
                f"the model's chat template fails on a chat of {roles}: {first_line(error)} "
                "Leave out --system, or mend chat_template in the tokenizer's folder."
            ) from error


def _ids(found: Any) -> tuple[int, ...]:
    """Token ids from whatever the tokenizer returned: a mapping, a list, or a list of one list."""
    found = found["input_ids"] if hasattr(found, "keys") else found
    found = found.tolist() if hasattr(found, "tolist") else list(found)
    return tuple(found[0] if found and isinstance(found[0], list) else found)
