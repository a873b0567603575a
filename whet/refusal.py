"""What is said when something cannot be done."""


class Refused(ValueError):
    """Something the user asked for cannot be; the message is one sentence that says what to do.

    It quotes what users wrote, so what would break its line is made visible.

    >>> print(Refused("there is no column 'a\\nb'."))
    there is no column 'a↵b'.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__("↵".join(sentence.splitlines()))


class NotFinite(Refused):
    """A number is NaN or infinite; `stage` says which stage of the flow made it. No step was taken with it."""

    def __init__(self, stage: str, sentence: str) -> None:
        super().__init__(sentence)
        self.stage = stage
