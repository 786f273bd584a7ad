"""Write docs/reference/ from the code: commands, settings, routes, the Python interface.

    python .ci/reference.py          # `make reference`

`tests/test_reference.py` fails where a page is not what this writes.
"""

import inspect
import os
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "reference"
NOTE = "<!-- Written by `make reference`; do not edit. -->\n"
_WIDTH = 100  # characters of help


def commands() -> str:
    """Every command's help."""
    import click

    from service.command import main

    def pages(group: click.Group, before: click.Context | None, name: str) -> Iterator[str]:
        # as the command makes it: what it once made of `--help` it keeps
        given = group.context_settings | {"max_content_width": _WIDTH}
        context = click.Context(group, info_name=name, parent=before, **given)
        context.terminal_width = _WIDTH
        level = "##" if before is None else "###" if name.count(" ") else "##"
        title = context.command_path
        yield f"{level} `{title}`\n\n```text\n{group.get_help(context).strip()}\n```\n"
        if isinstance(group, click.Group):
            for each in sorted(group.commands):
                yield from pages(group.commands[each], context, each)  # type: ignore[arg-type]

    return f"# Commands\n\n{NOTE}\n" + "\n".join(pages(main, None, "earmark"))


def settings() -> str:
    """Every setting."""
    from service.runtime.settings import Settings, in_words, variable_of

    rows = []
    for name, field in Settings.model_fields.items():
        default = "depends on the machine" if field.default_factory else in_words(field.default)
        rows.append(f"| `{name}` | `{variable_of(name)}` | {default} | {field.description} |")
    return (
        f"# Settings\n\n{NOTE}\nThe command's flag comes first, then the environment, then the "
        "configuration file, then the default. `earmark settings` shows the values in force.\n\n"
        "| setting | environment | default | meaning |\n|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n"
    )


def routes() -> str:
    """Every route of the HTTP service."""
    from service.runtime.settings import Settings
    from service.web.api import create_app

    described = create_app(Settings(), lambda result: None).openapi()
    parts = [
        f"# HTTP\n\n{NOTE}\nThe running service describes every field at `/docs`, and as OpenAPI at "
        "`/openapi.json`. Errors are RFC 9457 `application/problem+json`.\n"
    ]
    for path, methods in described["paths"].items():
        for method, said in methods.items():
            text = said.get("description") or said.get("summary", "")
            parts.append(f"## `{method.upper()} {path}`\n\n{text.strip()}\n")
            if given := said.get("parameters"):
                rows = "\n".join(
                    f"| `{it['name']}` | {it['in']} | {it.get('description', '')} |" for it in given
                )
                parts.append(f"| parameter | in | meaning |\n|---|---|---|\n{rows}\n")
            answers = ", ".join(
                f"{status} ({answer['description']})" if answer.get("description") else status
                for status, answer in said["responses"].items()
            )
            parts.append(f"Answers: {answers}.\n")
    return "\n".join(parts)


def python() -> str:
    """The public names of `import earmark`."""
    import earmark

    def entry(name: str, thing: object, level: str) -> str:
        try:
            signature = str(inspect.signature(thing)) if callable(thing) else ""  # type: ignore[arg-type]
        except ValueError:
            signature = ""
        if inspect.isclass(thing) and issubclass(thing, Exception):
            signature = ""
        head = f"{level} `{name}`\n"
        code = f"```python\n{name.split('.')[-1]}{signature}\n```\n" if signature else ""
        return "\n".join(filter(None, [head, code, f"```text\n{inspect.getdoc(thing)}\n```\n"]))

    parts = [f"# Python\n\n{NOTE}\n```text\n{inspect.getdoc(earmark)}\n```\n"]
    for name in sorted(set(earmark.__all__) - {"__version__"}):
        thing = getattr(earmark, name)
        parts.append(entry(f"earmark.{name}", thing, "##"))
        if name == "Library":
            for method, value in vars(thing).items():
                if not method.startswith("_"):
                    bound = getattr(thing, method) if isinstance(value, classmethod) else value
                    parts.append(entry(f"Library.{method}", bound, "###"))
    return "\n".join(parts)


PAGES = {"commands": commands, "settings": settings, "http": routes, "python": python}


def main() -> None:
    """Write the pages."""
    for name in [name for name in os.environ if name.startswith("EARMARK_")]:
        del os.environ[name]
    for name, page in PAGES.items():
        (FOLDER / f"{name}.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
