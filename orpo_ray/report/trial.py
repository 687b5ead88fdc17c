"""One line for the shell that asks the exported student a question."""

import json
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import jinja2

from orpo_ray.report.wording import from_here
from orpo_ray.tasks.prompts import PLAIN_TEMPLATE

# A longer prompt makes a line that nobody would paste.
_LONGEST_PROMPT = 600


def trial_line(model: Path, prompts: Sequence[str], max_new_tokens: int = 256) -> str:
    """A shell command that prints the student's answer to the shortest of `prompts`; without one, that serves it."""
    where = from_here(model)
    prompt = min(prompts, key=lambda text: ("'" in text, len(text)), default="")
    if not 0 < len(prompt) <= _LONGEST_PROMPT:
        return f"vllm serve {shlex.quote(where)}"
    message = {"role": "user", "content": prompt}
    if _has_chat_template(model):
        asked = json.dumps([message], ensure_ascii=False)
    else:
        plain = jinja2.Template(PLAIN_TEMPLATE).render(messages=[message], add_generation_prompt=True)
        asked = json.dumps(plain, ensure_ascii=False)
    code = (
        "from transformers import pipeline; "
        f'student = pipeline("text-generation", {json.dumps(where)}); '
        f"print(student({asked}, max_new_tokens={max_new_tokens}, do_sample=False, return_full_text=False)"
        '[0]["generated_text"])'
    )
    return f"{python_command()} -c {shlex.quote(code)}"


def python_command() -> str:
    """How this interpreter is called from here: `python` where that is it, else its path, relative where it is below."""
    found = shutil.which("python")
    if (
        found is not None
        and os.path.samefile(found, sys.executable)
        and Path(found).parent == Path(sys.executable).parent
    ):
        return "python"
    return shlex.quote(from_here(Path(sys.executable)))


def _has_chat_template(model: Path) -> bool:
    if (model / "chat_template.jinja").is_file():
        return True
    try:
        return bool(json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8")).get("chat_template"))
    except (OSError, ValueError):
        return False
