"""pod_handlers: what the commands `pod args`, `pod lint` and `pod init-container` do. They change nothing."""

from __future__ import annotations

from ..errors import FOUND, SettingsError
from ..pod.annotations import INIT
from ..pod.container import VALIDATION, container_settings, entry, for_entry, for_validation, rights
from ..pod.lint import KINDS, lint
from ..pod.manifest import pick
from ..settings.resolve import parse
from ..settings.texts import nearest, quoted
from . import streams
from .collect import pod_name, pods_of
from .log import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..pod import Pod
    from ..pod.lint import Finding
    from .context import Context


def arguments(context: Context) -> int:
    """pod args: print the arguments for a pod, and where each value comes from."""
    found = container_settings(context.given)
    command_line, variables, style = found.arguments(), found.variables(), context.options["format"]
    if style == "json":
        origins = [
            {"setting": given.setting.name, "value": given.text, "origin": given.origin}
            for given in found.settings
        ]
        _print_json({"args": command_line, "env": variables, "origins": origins})
        return 0
    _print_lines(found.comments())
    if style == "shell":
        import shlex

        assignments = [f"{name}={shlex.quote(text)}" for name, text in variables.items()]
        _print_lines([" ".join([*assignments, *map(shlex.quote, command_line)])])
        return 0
    for name, text in variables.items():
        _print_lines([f"# a variable (env:), since it has no flag: {name}={_yaml_text(text)}"])
    _print_lines([f"[{', '.join(map(_yaml_text, command_line))}]"])
    return 0


def init_container(context: Context) -> int:
    """pod init-container: print the entry."""
    given, parsed, name = context.given, context.parsed, INIT
    if context.options["cni"]:
        given, name = [*for_validation(given)], VALIDATION
        parsed = parse(given, context.facts)
    found = for_entry(container_settings(given), parsed.operation())
    made = entry(found, context.options["image"], rights(parsed), name)
    if context.options["format"] == "json":
        _print_json(made)
        return 0
    import yaml

    _print_lines(found.comments())
    streams.write(yaml.safe_dump([made], sort_keys=False, width=float("inf")))
    return 0


def findings(context: Context) -> int:
    """pod lint: print the findings."""
    ignored = context.options["ignore"]
    unknown = [
        f"--ignore: {quoted(kind)}: unknown kind{_hint(kind)}" for kind in ignored if kind not in KINDS
    ]
    if unknown:
        raise SettingsError(unknown)
    pods = [(file, pod) for file, found in _manifests(context) for pod in found]
    there = [
        finding.replace(file=file)
        for file, pod in pods
        for finding in lint(pod, context.facts, context.given)
        if finding.kind not in ignored
    ]
    if context.options["json"]:
        _print_json({"pods": len(pods), "findings": [_as_json(finding) for finding in there]})
    else:
        _print_lines([str(finding) for finding in there])
    if there:
        return FOUND
    log.info(f"pods checked: {len(pods)}, no findings")
    return 0


def _manifests(context: Context) -> list[tuple[str, tuple[Pod, ...]]]:
    """Return the files and the pods in each. Raises SettingsError with the mistakes of all files."""
    name = pod_name(context.invocation)
    mistakes: list[str] = []
    read: list[tuple[str, tuple[Pod, ...]]] = []
    for file in dict.fromkeys(context.invocation.operands):
        try:
            found = pods_of(file, "FILE")
        except SettingsError as error:
            mistakes += error.mistakes
            continue
        if not found:
            log.warn(f"{file}: contains no pod, and no workload with a pod template")
        read.append((file, found))
    if name and not mistakes:
        everything = tuple(pod for _, found in read for pod in found)
        wanted = pick(everything, name, "FILE") if everything else None
        read = [(file, tuple(pod for pod in found if pod is wanted)) for file, found in read]
    if mistakes:
        raise SettingsError(mistakes)
    return read


def _hint(kind: str) -> str:
    return nearest(kind, KINDS) or f" (kinds: {', '.join(KINDS)})"


def _as_json(finding: Finding) -> dict[str, str | int]:
    # Texts of a manifest are of a subclass of str.
    return {name: v if isinstance(v, int) else str(v) for name, v in finding.as_dict().items()}


def _yaml_text(text: str) -> str:
    """Return a string as a YAML scalar in double quotes."""
    import yaml

    return yaml.safe_dump(text, default_style='"', width=float("inf")).rstrip("\n")


def _print_json(document: Any) -> None:
    import json

    _print_lines([json.dumps(document, indent=2)])


def _print_lines(lines: list[str]) -> None:
    streams.write("".join(f"{line}\n" for line in lines))
