"""The page of the papers that cards and recipes cite."""

from __future__ import annotations

from docs.generator.pages import Pages
from mer_zoo.registry.references import references


def link(key: str | None) -> str:
    """Return a Markdown link to a paper's place on the page, or "none"."""
    paper = references().get(key or "")
    return f"[{paper.short}](#paper-{paper.key})" if paper else "none"


def pages(used: dict[str, list[str]]) -> Pages:
    """Return the page of papers; `used` says which pages cite a key, as Markdown links."""
    lines = [
        "# Papers",
        "",
        "What the parts and recipes reproduce. Cite the papers of the models that you compare.",
        "",
    ]
    for paper in sorted(references().values(), key=lambda p: (p.authors[0].lower(), p.year)):
        names = [" ".join(reversed(name.split(", "))) for name in paper.authors]
        authors = ", ".join("et al." if name == "others" else name for name in names).replace(", et al.", " et al.")
        lines += [f"(paper-{paper.key})=", f"**{paper.title}**  ", f"{authors}. *{paper.venue}*, {paper.year}.  "]
        lines += [f"`{paper.key}`" + (f", cited by {', '.join(used[paper.key])}" if paper.key in used else ""), ""]
    return {"papers.md": "\n".join(lines)}
