"""A line for every run."""

from pathlib import Path

from mer_zoo.results.run import Run


class Book:
    """A text file with a line per run.

    Args:
        results: folder of the result files (a fact).
        digits: of the score.
    """

    def __init__(self, results: str, *, digits: int = 3) -> None:
        self.path, self.digits = Path(results, "book.txt"), digits

    def log(self, run: Run) -> None:
        """Write a line; called once after each finished or broken run."""
        score = run.measures.get("test/weighted_f1")
        with self.path.open("a", encoding="utf-8") as book:
            print(run.name, run.failure if score is None else f"{score:.{self.digits}f}", sep=": ", file=book)
