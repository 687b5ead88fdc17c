"""Write the documentation's pages and their order into a directory that mkdocs makes the site from: `make docs`.

The pages are the repository's own Markdown files, at the paths that they have here, so that their links work there as here.
The reference is made from the code: configuration, command line and Python API.
"""

import argparse
import inspect
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import typer
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import orpo_ray.client
from orpo_ray import tasks
from orpo_ray.cli.app import app
from orpo_ray.config.run import RunConfig
from orpo_ray.service.app import create_app
from orpo_ray.service.runs import ClusterJobs, Runs

ROOT = Path(__file__).resolve().parents[1]

NAVIGATION: dict[str, list[str]] = {
    "Start": ["README.md", "docs/tutorial.md", "examples/README.md"],
    "How to": [
        "docs/howto/own-task.md",
        "docs/howto/api-teacher.md",
        "docs/howto/lora.md",
        "docs/cluster.md",
        "docs/client.md",
        "docs/service.md",
        "docs/howto/resume.md",
        "docs/howto/mirror.md",
        "docs/watching.md",
        "docs/metrics.md",
        "docs/experiments.md",
    ],
    "Reference": [
        "docs/reference/configuration.md",
        "docs/reference/commands.md",
        "docs/reference/python.md",
        "docs/reference/rest.md",
        "deploy/README.md",
        "docker/README.md",
    ],
    "Explanation": [
        "docs/method.md",
        "docs/architecture.md",
        "docs/staleness.md",
        "docs/training.md",
        "docs/reliability.md",
        "docs/security.md",
    ],
    "Project": ["CONTRIBUTING.md", "CHANGELOG.md"],
}
"""Sections and their pages, by the paths that they have in the repository. A page below docs/ that is not named comes last
in "How to"."""


def pages() -> dict[str, str]:
    """Every page's Markdown, by its path."""
    written = {str(file.relative_to(ROOT)): file.read_text() for file in sources()}
    return {path: _with_working_links(path, text) for path, text in written.items()} | {
        "docs/reference/configuration.md": configuration(),
        "docs/reference/commands.md": commands(),
        "docs/reference/python.md": python(),
        "docs/reference/rest.md": rest(),
    }


def sources() -> list[Path]:
    """The repository's own pages."""
    named = [ROOT / path for paths in NAVIGATION.values() for path in paths]
    return sorted({file for file in named if file.exists()} | set((ROOT / "docs").rglob("*.md")))


def navigation(names: Iterable[str]) -> list[dict[str, list[Any]]]:
    """The site's navigation, as mkdocs takes it, of the pages that there are."""
    there = set(names)
    sections = {title: [path for path in paths if path in there] for title, paths in NAVIGATION.items()}
    sections["How to"] += sorted(there - {path for paths in sections.values() for path in paths})
    return [{title: list(paths)} for title, paths in sections.items()]


def configuration() -> str:
    """Every option, with its type, default, unit, bounds and sentence."""
    lines = [
        "# Configuration",
        "",
        "A run is one YAML file of these sections. `orpo-ray config schema` prints the same as a JSON schema, `orpo-ray "
        "validate FILE` a file with every option resolved.",
        "",
    ]
    plain = {name for name, field in RunConfig.model_fields.items() if _section(field.annotation) is None}
    lines += _option_rows(RunConfig, only=plain)
    for name, field in RunConfig.model_fields.items():
        if (model := _section(field.annotation)) is not None and name != "more_teachers":
            lines += ["", f"## {name}", "", field.description or "", "", *_option_rows(model, f"{name}.")]
    return "\n".join(lines) + "\n"


def commands() -> str:
    """Every command, with its usage, arguments and options."""
    lines = ["# Commands", "", "`orpo-ray COMMAND --help` prints the same.", ""]
    for words, command in _commands(typer.main.get_command(app), ("orpo-ray",)):
        context = command.make_context(words[-1], [], resilient_parsing=True)
        lines += [f"## {' '.join(words)}", "", inspect.cleandoc(command.help or ""), ""]
        usage = [piece for parameter in command.params for piece in parameter.get_usage_pieces(context)]
        options = ["[OPTIONS]"] if any(_is_option(parameter) for parameter in command.params) else []
        lines += ["```", " ".join([*words, *options, *usage]), "```", ""]
        records = [record for parameter in command.params if (record := parameter.get_help_record(context))]
        if records:
            lines += ["| argument or option | what it does |", "|---|---|"]
            lines += [f"| `{_cell(name)}` | {_text(words)} |" for name, words in records]
            lines.append("")
    return "\n".join(lines)


def python() -> str:
    """The public names of the client, and of tasks, with their signatures and docstrings."""
    lines = [
        "# Python",
        "",
        "`orpo_ray.Client` and `orpo_ray.AsyncClient` are here by their own names, the rest of the first part in "
        "`orpo_ray.client`. [Runs from Python](../client.md) shows them at work.",
        "",
        "## orpo_ray.client",
        "",
    ]
    for name in orpo_ray.client.__all__:
        lines += _class(name, getattr(orpo_ray.client, name))
    lines += ["## orpo_ray.tasks", "", "What [a task of your own](../howto/own-task.md) is made of.", ""]
    for name in tasks.__all__:
        found = getattr(tasks, name)
        if inspect.isclass(found):
            lines += _class(name, found)
        elif callable(found):
            lines += [f"### {name}", "", *_code(f"{name}{_signature(found)}"), *_docstring(found)]
    return "\n".join(lines)


def rest() -> str:
    """Every route of `orpo-ray serve`, with its parameters and what it gives, from its own OpenAPI description."""
    described = create_app(Runs(Path("/runs"), ClusterJobs("http://127.0.0.1:8265", None)), None).openapi()
    lines = [
        "# REST",
        "",
        "What [`orpo-ray serve`](../service.md) answers. Errors are `{detail, problems}`; `problems` names every mistake of a "
        "configuration. 401: no token, or another one; 404: no such run; 409: another job works on it, or none that could be "
        "stopped; 413: the body is too long; 422: the input is at fault; 502: the cluster does not answer; 503: ask later.",
        "",
    ]
    for path, routes in described["paths"].items():
        for method, route in routes.items():
            lines += [f"## {method.upper()} {path}", "", route.get("description", route["summary"]), ""]
            rows = [_parameter(parameter) for parameter in route.get("parameters", []) if parameter["in"] == "query"]
            if rows:
                lines += ["| parameter | default | what it is |", "|---|---|---|", *rows, ""]
            body = route.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            given: dict[str, Any] = next(
                (route["responses"][code] for code in ("200", "202") if code in route["responses"]), {}
            )
            answer = given.get("content", {}).get("application/json", {}).get("schema", {})
            shapes = [("Takes", body), ("Gives", answer if "$ref" in answer else None)]
            lines += [f"{verb} [{_shape(shape)}](#{_shape(shape).lower()})." for verb, shape in shapes if shape]
            lines.append("")
    for name, shape in described["components"]["schemas"].items():
        if name not in ("HTTPValidationError", "ValidationError"):
            lines += [f"## {name}", "", shape.get("description", ""), "", "| field | what it is |", "|---|---|"]
            lines += [
                f"| `{field}` | {_text(facts.get('description', ''))} |" for field, facts in shape["properties"].items()
            ]
            lines.append("")
    return "\n".join(lines)


def _parameter(parameter: dict[str, Any]) -> str:
    schema = parameter["schema"]
    bounds = [
        f"{word} {schema[key]}" for key, word in (("minimum", "at least"), ("maximum", "at most")) if key in schema
    ]
    words = " ".join([parameter.get("description", ""), *([f"({', '.join(bounds)})"] if bounds else [])]).strip()
    return f"| `{parameter['name']}` | {_cell(str(schema.get('default', '')))} | {_text(words)} |"


def _shape(schema: dict[str, Any]) -> str:
    return str(schema["$ref"]).rpartition("/")[2]


def _option_rows(model: type[BaseModel], prefix: str = "", only: set[str] | None = None) -> list[str]:
    rows = [f"| {' | '.join(row)} |" for row in _options(model, prefix, only)]
    return ["| option | default | what it does |", "|---|---|---|", *rows]


def _options(model: type[BaseModel], prefix: str, only: set[str] | None = None) -> Iterator[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        if only is not None and name not in only:
            continue
        full = prefix + (field.alias or name)
        inner = _section(field.annotation)
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        if inner is not None and field.default is not None and not isinstance(field.default, list):
            yield from _options(inner, f"{full}.")
            continue
        words = _text(field.description or "") + _bounds(field.metadata)
        default = f"{_default(field.default)} {extra.get('unit', '')}".strip()
        yield f"`{full}`", default, f"{words} {_kind(field.annotation)}".strip()
        if inner is not None and not isinstance(field.default, list):
            yield from _options(inner, f"{full}.")


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section that an option's type holds."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return annotation
    arguments = getattr(annotation, "__args__", ())
    return next((found for argument in arguments if (found := _section(argument)) is not None), None)


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "**required**"
    if isinstance(value, BaseModel):
        return ""
    if value is None:
        return "not set"
    text = (
        yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True).removesuffix("...\n").strip()
    )
    return f"`{_cell(text)}`" if len(text) <= 40 else "a text: `orpo-ray config schema`"


def _bounds(metadata: Iterable[Any]) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = [
        f"{sign} {getattr(check, name)}" for check in metadata for name, sign in signs.items() if hasattr(check, name)
    ]
    return f" {', '.join(found)}." if found else ""


def _kind(annotation: Any) -> str:
    """The choices of an option that has some."""
    arguments = getattr(annotation, "__args__", ())
    if arguments and all(isinstance(argument, str) for argument in arguments):
        return "One of " + ", ".join(f"`{argument}`" for argument in arguments) + "."
    return ""


def _commands(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, found in getattr(command, "commands", {}).items():
        if hasattr(found, "commands"):
            yield from _commands(found, (*words, name))
        else:
            yield (*words, name), found


def _is_option(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "option")


def _class(name: str, found: Any) -> list[str]:
    lines = [f"### {name}", ""]
    if not issubclass(found, BaseException) and not hasattr(found, "__members__"):
        lines += _code(f"{name}{_signature(found)}")
    elif bases := [base.__name__ for base in found.__bases__ if base is not object]:
        lines += [f"A {', '.join(f'`{base}`' for base in bases)}.", ""]
    lines += _docstring(found)
    if members := getattr(found, "__members__", None):
        return [*lines, "One of " + ", ".join(f"`{member.value}`" for member in members.values()) + ".", ""]
    for member, value in vars(found).items():
        function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if member.startswith("_") or not (inspect.isfunction(function) or isinstance(value, property)):
            continue
        if inspect.getdoc(function):
            shown = member if isinstance(value, property) else f"{member}{_signature(function)}"
            lines += [f"#### {name}.{member} {{: #{name}.{member} }}", "", *_code(shown), *_docstring(function)]
    return lines


def _signature(found: Any) -> str:
    try:
        text = str(inspect.signature(found))
    except ValueError:
        return ""
    # Full paths of types say less than their names, and the addresses of objects are others at each start.
    text = re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Z])", "", re.sub(r" at 0x[0-9a-f]+", "", text))
    return re.sub(r"^\((?:self|cls)(?:, )?", "(", text)


def _docstring(found: Any) -> list[str]:
    """The docstring as Markdown: its sections (Args, Raises, …) as lists."""
    lines: list[str] = []
    listed = fenced = False
    for line in (inspect.getdoc(found) or "").splitlines():
        if fenced or re.match(r" *(?:async )?with .*:$", line):  # an example, up to the next blank line
            lines += [line] if fenced else ["```python", line]
            fenced = bool(line.strip())
            lines[-1] = lines[-1] if fenced else "```\n"
            continue
        if re.fullmatch(r"(Args|Raises|Returns|Yields|Attributes):", line):
            listed = True
            lines += ["", f"**{line.removesuffix(':')}**", ""]
        elif listed and (item := re.match(r"    (\S[^:]*): (.*)", line)):
            lines.append(f"- `{item[1]}`: {_text(item[2], cell=False)}")
        elif listed and line.startswith("    "):
            lines.append(f"  {_text(line.strip(), cell=False)}")
        else:
            listed = listed and not line.strip()
            lines.append(_text(line, cell=False) if not line.startswith("    ") else line)
    return [*lines, *(["```"] if fenced else []), ""]


def _code(text: str) -> list[str]:
    return ["```python", text, "```", ""]


def _text(words: str, *, cell: bool = True) -> str:
    """Words that Markdown takes as they are: outside code, nothing in them is HTML."""
    parts = re.split(r"(`[^`]*`)", words)
    plain = "".join(part if part.startswith("`") else part.replace("<", "&lt;").replace("*", "\\*") for part in parts)
    return _cell(" ".join(plain.split())) if cell else plain


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _with_working_links(path: str, text: str) -> str:
    """Links to what the site has not, as plain words; links to a directory with a page of its own, to that page."""
    here = (ROOT / path).parent

    def mended(match: re.Match[str]) -> str:
        words, target = match[1], match[2]
        file = target.partition("#")[0]
        if "://" in target or not file or not (found := (here / file).resolve()).exists():
            return match[0]  # mkdocs finds what leads nowhere
        if found.is_dir():
            return f"[{words}]({file.rstrip('/')}/README.md)" if found / "README.md" in sources() else words
        if found.suffix == ".md" and found in sources():
            return match[0]
        return match[0] if found in attachments() else words

    return re.sub(r"\[([^\]]+)\]\(([^)\s]+)\)", mended, text)


def attachments() -> list[Path]:
    """Files that pages link to or show: configurations, alert rules, images."""
    folders = ("examples", "deploy/monitoring", "docs")
    endings = {".yaml", ".json", ".png", ".svg", ".webp", ".css"}
    return [file for folder in folders for file in sorted((ROOT / folder).rglob("*")) if file.suffix in endings]


def write(directory: Path) -> None:
    """Write pages and attachments below `directory`/pages, and `directory`/mkdocs.yml; what was there before goes."""
    shutil.rmtree(directory, ignore_errors=True)
    written = pages()
    for path, text in written.items():
        file = directory / "pages" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for file in attachments():
        target = directory / "pages" / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    settings = {"INHERIT": str(ROOT / "mkdocs.yml"), "docs_dir": "pages", "nav": navigation(written)}
    (directory / "mkdocs.yml").write_text(yaml.safe_dump(settings, sort_keys=False))


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the pages that mkdocs makes the site from.")
    parser.add_argument("directory", type=Path, help="where to; what is there goes")
    write(parser.parse_args().directory)


if __name__ == "__main__":
    main()
