"""How a command line and its `--config` are read, where click's own way is not kube-proxy's.

Not for what flags mean: `lb.agent_command` and `lb.kubeproxy`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lb import GIT_VERSION, KUBERNETES, __version__
from lb.errors import BadInput
from lb.kubeproxy.decode import Document, read

KUBE_PROXY = "kube-proxy"
"""The name by which the agent is called as kube-proxy."""
DOCUMENT, WHERE = "lb.reading.document", "lb.reading.where"
"""Keys of a context's `meta`: the KubeProxyConfiguration; the path of the file."""

_NEGATED = {"--no-host-ports": "--host-ports=false"}
"""Not options of their own, for of two for one value click would not let the last one win."""


class Command(click.Command):
    """Takes flags as Go's pflag does, too: `-v=2` and `--masquerade_all`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does it, of arguments in click's own form."""
        return super().parse_args(ctx, [_as_click_has_it(one) for one in args])


def _as_click_has_it(argument: str) -> str:
    if argument.startswith("-v="):
        return f"-{argument}"
    if argument.startswith("--"):
        name, equals, value = argument.partition("=")
        written = name.replace("_", "-") + equals + value
        return _NEGATED.get(written, written)
    return argument


def from_file(context: click.Context, _: click.Parameter, path: Path | None) -> Path | None:
    """A KubeProxyConfiguration; else Tidegate's flags in YAML: those on the command line win."""
    if path is None:
        return None
    try:
        found = read(path.read_bytes())
    except (OSError, BadInput) as error:
        raise click.BadParameter(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    context.meta[WHERE] = path
    if found.is_kube_proxy or context.info_name == KUBE_PROXY:
        context.meta[DOCUMENT] = found
    else:
        context.default_map = _flags_in(found, path, context.command)
    return path


def _flags_in(document: Document, path: Path, command: click.Command) -> dict[str, Any]:
    if not isinstance(document.value, dict):
        raise click.BadParameter(f"{path}: not a mapping of flags to values")
    known = {name.lstrip("-"): one for one in command.params for name in one.opts}
    values: dict[str, Any] = {}
    for name, value in document.value.items():
        one = known.get(str(name).replace("_", "-"))
        if one is None or one.name is None:
            raise click.BadParameter(f"{path}: {name}: no such flag")
        if value is None:  # a name and nothing else: as if it were not there
            continue
        parts = value if isinstance(value, list) else [value]
        texts = [_as_typed(part, one.type) for part in parts]
        texts = texts if one.multiple else [",".join(texts)]
        try:
            for text in texts:
                one.type.convert(text, one, None)
        except click.BadParameter as error:
            raise click.BadParameter(f"{path}: {name}: {error.message}") from error
        values[one.name] = texts if one.multiple else texts[0]
    return values


def tell_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:  # noqa: FBT001
    """Under kube-proxy's name as kube-proxy tells it, since installers read that; and end."""
    if wanted:
        called_so = context.info_name == KUBE_PROXY
        said = f"Tidegate {__version__}, in place of kube-proxy {KUBERNETES}"
        click.echo(f"Kubernetes {GIT_VERSION}" if called_so else said)
        context.exit()


def _as_typed(value: Any, kind: click.ParamType[Any]) -> str:
    """As on the command line. YAML 1.1 has `on` and `off` for true and false."""
    if isinstance(value, bool):
        words = ("off", "on") if isinstance(kind, click.Choice) else ("false", "true")
        return words[value]
    if isinstance(value, dict):
        return ",".join(f"{name}={_as_typed(one, click.STRING)}" for name, one in value.items())
    return str(value)
