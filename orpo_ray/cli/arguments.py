"""Arguments and options that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

File = Annotated[Path, typer.Argument(metavar="FILE", help="The run's YAML configuration.", show_default=False)]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="SECTION.OPTION=VALUE", help="Override an option; may be repeated.", show_default=False
    ),
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Remove what the run's distillation left and start it anew; traces are kept.")
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="The cluster's dashboard, as http://HEAD:8265; RAY_API_SERVER_ADDRESS or this machine's where left out. "
        "Its token comes from RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH.",
        show_default=False,
    ),
]
Submitted = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id, or its name for the newest.", show_default=False)
]
