"""whet: the RL reading list you can run."""

__version__ = "0.1.0"
