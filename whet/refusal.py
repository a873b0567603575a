"""What is said when something cannot be done."""


class Refused(ValueError):
    """Something the user asked for cannot be; the message is one sentence that says what to do."""


class NotFinite(Refused):
    """A number is NaN or infinite; `stage` says which stage of the flow made it. No step was taken with it."""

    def __init__(self, stage: str, sentence: str) -> None:
        super().__init__(sentence)
        self.stage = stage
