"""What is said when something cannot be done."""


class Refused(ValueError):
    """Something the user asked for cannot be; the message is one sentence that says what to do."""
