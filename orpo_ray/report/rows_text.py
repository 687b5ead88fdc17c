"""Traces and pairs on a terminal: what a person reads one after another."""

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from orpo_ray.report.browse import PairRow, TraceRow

_COLOURS = {"right": "green", "wrong": "red", "unparsed": "yellow"}


def trace_block(row: TraceRow) -> RenderableType:
    """One line of facts, the prompt's last words, and the trace."""
    facts = Text()
    facts.append(f"{row.source} ", style="bold")
    facts.append(f"prompt {row.prompt_id}, sample {row.sample}  ")
    _verdict(facts, row.verdict)
    facts.append(", kept" if row.kept else ", near-duplicate" if row.near_duplicate else ", not kept")
    facts.append(f"  {row.tokens} tokens{', cut' if row.truncated else ''}")
    if row.overlap is not None:
        facts.append(f"  overlap {row.overlap:.2f}")
    if row.epoch is not None:
        facts.append(f"  epoch {row.epoch}, step {row.step}, version {row.version}")
    return Group(facts, *_prompt(row.prompt), Text(row.text), Text())


def pair_block(row: PairRow) -> RenderableType:
    """One line of facts, the prompt, and chosen beside rejected."""
    facts = Text()
    facts.append(f"epoch {row.epoch}, step {row.step}", style="bold")
    facts.append("" if row.trained else " (not trained yet)")
    facts.append(f"  prompt {row.prompt_id}, row {row.row}, pair {row.pair}  {row.source}")
    if row.rejected is not None:
        facts.append(f" version {row.version}  ")
        _verdict(facts, row.verdict)
        facts.append(f"{', cut' if row.truncated else ''}  overlap {row.overlap:.2f}")
    both = Table(expand=True, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    both.add_column(f"chosen ({row.chosen_tokens} tokens)", ratio=1, header_style="green", overflow="fold")
    rejected = "no rejected trace" if row.rejected is None else f"rejected ({row.rejected_tokens} tokens)"
    both.add_column(rejected, ratio=1, header_style="red", overflow="fold")
    both.add_row(Text(row.chosen), Text(row.rejected or ""))
    return Group(facts, *_prompt(row.prompt), both, Text())


def as_text(block: RenderableType, console: Console) -> str:
    """The block as `console` would print it."""
    with console.capture() as capture:
        console.print(block, highlight=False)
    return capture.get()


def _verdict(facts: Text, verdict: str | None) -> None:
    facts.append(verdict or "verdict not known", style=_COLOURS.get(verdict or "", ""))


def _prompt(prompt: str | None) -> list[Text]:
    return [Text(prompt.strip(), style="dim")] if prompt else []
