"""Pages: the documentation taken apart into commands, Python and data, for tests to run.

A block of code is indented by four spaces or fenced. What it is, its first words say: a line that begins
with a program's name, or with `$ ` if output follows, is a command. Inline code is a command if it is
a whole command line: a program's name and at least one argument.

What a page wants to say about a command stands where readers see it, in a comment at the end of its line:

    istio-iptables diff     # exit code 3            also `exit 0 yes, 3 no`: one of these
    kubectl get pods        # needs a cluster        not run, but listed

What only tests need is in comments of HTML, which nobody sees:

    <!-- needs: a cluster -->                  the next block, or the inline command before it, is not run
    <!-- before: istio-iptables -b '*' -->     run this first; it has to succeed
    <!-- scene: ipv4 -->                       from here on, in a new pod: see tests/kernel/sandbox.py
    <!-- listen: envoy 15001,15006 1337 -->    in the pod somebody listens, as this UID
    <!-- text -->                              the next block is no command, although it looks like one
    <!-- file: web.yaml -->                    the next block is what this file holds, from there on

Other comments say nothing to tests; `<!-- -->` ends a list, so that what comes next is a block.

Every second-level heading begins a section, and every section begins in a new pod of the same kind.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))

#: What a line of a block begins with if it is a command.
_PROGRAM_NAMES = """
    istio-iptables istio-clean-iptables iptables iptables-save iptables-restore iptables-legacy
    iptables-legacy-save iptables-legacy-restore iptables-nft iptables-nft-save iptables-nft-restore
    ip6tables ip6tables-save ip6tables-restore ip6tables-legacy ip6tables-legacy-save ip6tables-legacy-restore
    ip6tables-nft ip6tables-nft-save ip6tables-nft-restore nft ip ss conntrack curl ncat dig
    capsh fuser unshare lsmod modprobe modinfo nsenter ps setpriv sleep sysctl dmesg getenforce ausearch
    cat cp diff echo env git grep head id install ls mkdir printf rm sed sh sudo tail tee test touch
    make pip pytest python3 podman docker crictl kubectl oc minikube kind talosctl gcloud runsc kustomize
    journalctl systemctl systemd-analyze systemd-run apt-get dnf hyperfine
"""
PROGRAMS = frozenset(_PROGRAM_NAMES.split())
#: What tests do not have, and the programs that need it. A block may be left out for that reason if one of
#: its commands is of these.
NEEDS = {
    "a cluster": {"crictl", "gcloud", "kind", "kubectl", "kustomize", "minikube", "oc", "runsc", "talosctl"},
    "a node": {"ausearch", "dmesg", "getenforce", "journalctl", "lsmod", "modinfo", "modprobe", "tee"},
    "a container engine": {"docker", "podman", "make"},
    "a package index": {"apt-get", "dnf", "git", "pip"},
    "hyperfine": {"hyperfine"},
}


class Command(NamedTuple):
    """A command of a page, and what the page says of it."""

    page: str
    line: int
    text: str
    codes: tuple[int, ...] = (0,)
    output: str | None = None
    needs: str = ""
    shown: bool = True
    section: int = 0
    scene: str = "ipv4"
    block: int = 0  #: the line at which its block begins

    @property
    def where(self) -> str:
        """The place, as editors understand it."""
        return f"{self.page}:{self.line}"

    @property
    def programs(self) -> set[str]:
        """The programs that it runs, as far as their names tell."""
        words = (part.strip().split() for part in re.split(r"\||&&|;|\n", self.text))
        return {program_of(" ".join(part)) for part in words if part} - {""}


class Listen(NamedTuple):
    """Somebody who is to listen on ports in the pod, or (`client`) outside of it."""

    page: str
    line: int
    name: str
    ports: tuple[int, ...]
    uid: int
    section: int
    scene: str


class Block(NamedTuple):
    """A block of code that is not made of commands: what it is, its text, and what it needs."""

    page: str
    line: int
    kind: str
    text: str
    needs: str
    section: int
    scene: str


class Page(NamedTuple):
    """All of a page that can be run or checked, in its order."""

    name: str
    steps: tuple[Command | Listen | Block, ...]

    @property
    def commands(self) -> list[Command]:
        """The commands that readers see."""
        return [step for step in self.steps if isinstance(step, Command) and step.shown]

    @property
    def blocks(self) -> list[Block]:
        """The blocks of everything else."""
        return [step for step in self.steps if isinstance(step, Block)]


class BadPage(ValueError):
    """A page that does not keep to the rules above."""


def read(name: str) -> Page:
    """Take a page of the documentation apart."""
    return parse(name, (ROOT / name).read_text())


def parse(name: str, text: str) -> Page:
    """Take the text of a page apart. Raises BadPage."""
    return Page(name, tuple(_Reader(name, text.splitlines()).read()))


def program_of(line: str) -> str:
    """Return the name of the program that a line begins with, after variables and `sudo`, or nothing."""
    words = line.split()
    while words and (re.match(r"[A-Z_]+=", words[0]) or words[0] == "sudo"):
        words.pop(0)
    name = words[0].rpartition("/")[2] if words else ""
    return name if name in PROGRAMS else ""


class _Reader:
    def __init__(self, page: str, lines: list[str]) -> None:
        self.page = page
        self.lines = lines
        self.at = 0
        self.section = 0
        self.scene = "ipv4"
        self.needs = ""
        self.as_text = False
        self.file = ""

    def read(self) -> Iterator[Command | Listen | Block]:
        """Return the steps of the page."""
        blank = True
        while self.at < len(self.lines):
            line = self.lines[self.at]
            if line.startswith("```"):
                yield from self._fenced()
            elif line.startswith("    ") and blank:
                yield from self._indented()
            elif line.startswith("<!--"):
                yield from self._comment()
            else:
                if line.startswith("## "):
                    self.section += 1
                yield from self._inline(line)
                self.at += 1
                blank = not line.strip()
                continue
            blank = True

    # --- blocks

    def _fenced(self) -> Iterator[Command | Block]:
        language = self.lines[self.at][3:].strip()
        first = self.at + 1
        self.at = first
        while self.at < len(self.lines) and self.lines[self.at] != "```":
            self.at += 1
        if self.at == len(self.lines):
            raise BadPage(f"{self.page}:{first}: the fence is not closed")
        block = self.lines[first : self.at]
        self.at += 1
        yield from self._block(block, first + 1, language)

    def _indented(self) -> Iterator[Command | Block]:
        first = self.at
        while self.at < len(self.lines) and (
            self.lines[self.at].startswith("    ") or not self.lines[self.at]
        ):
            self.at += 1
        while not self.lines[self.at - 1]:
            self.at -= 1
        yield from self._block([line[4:] for line in self.lines[first : self.at]], first + 1, "")

    def _block(self, lines: list[str], number: int, language: str) -> Iterator[Command | Block]:
        needs, self.needs = self.needs, ""
        as_text, self.as_text = self.as_text, False
        kind = "text" if as_text else _kind(lines, language)
        if kind == "session":
            yield from self._session(lines, number, needs)
        elif kind == "commands":
            for at, command in _joined(lines):
                yield self._command(number + at, command, needs=needs, block=number)
        else:
            looks = [
                line
                for line in lines
                if kind == "text" and not as_text and line[:1] != " " and program_of(line)
            ]
            if looks:
                raise BadPage(
                    f"{self.page}:{number}: neither commands nor text: {looks[0]!r} (see tests/pages.py)"
                )
            text = "\n".join(lines) + "\n"
            file, self.file = self.file, ""
            if file:
                writing = f"cat >{file} <<'END-OF-FILE'\n{text}END-OF-FILE"
                yield Command(self.page, number, writing, shown=False, section=self.section, scene=self.scene)
            yield Block(self.page, number, kind, text, needs, self.section, self.scene)

    def _session(self, lines: list[str], number: int, needs: str) -> Iterator[Command]:
        starts = [at for at, line in enumerate(lines) if line.startswith("$ ")]
        if not starts or starts[0] != 0:
            raise BadPage(f"{self.page}:{number}: a session begins with a command after `$ `")
        for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
            part = [lines[start][2:], *lines[start + 1 : end]]
            _, command = next(_joined(part))
            output = "\n".join(part[command.count("\n") + 1 :])
            yield self._command(number + start, command, output, needs, number)

    def _command(
        self, number: int, text: str, output: str | None = None, needs: str = "", block: int = 0
    ) -> Command:
        """Return a command with what the comment at its end says."""
        _, _, comment = text.splitlines()[0].partition(" # ") if "<<" in text else text.rpartition(" # ")
        codes: tuple[int, ...] = (0,)
        if not _in_quotes(text, comment):
            if found := re.search(r"\bexit(?: code)? (\d.*)", comment):
                codes = tuple(int(word) for word in re.findall(r"\d+", found[1]))
            if found := re.search(r"\bneeds (.*)", comment):
                needs = found[1].partition(":")[0].strip()
        if not needs and not program_of(text):
            raise BadPage(f"{self.page}:{number}: this is no command of a known program: {text!r}")
        made = Command(self.page, number, text, codes, output, needs)
        return made._replace(section=self.section, scene=self.scene, block=block)

    # --- the rest

    def _comment(self) -> Iterator[Command | Listen]:
        first = self.at
        while "-->" not in self.lines[self.at]:
            self.at += 1
        self.at += 1
        text = "\n".join(self.lines[first : self.at]).strip().removeprefix("<!--").removesuffix("-->")
        key, _, value = (part.strip() for part in text.partition(":"))
        if key == "needs":
            self.needs = value
        elif key == "text":
            self.as_text = True
        elif key == "file":
            self.file = value
        elif key == "scene":
            self.scene = value
            self.section += 1
        elif key == "before":
            for _, command in _joined(value.splitlines()):
                yield Command(
                    self.page, first + 1, command, shown=False, section=self.section, scene=self.scene
                )
        elif key == "listen":
            name, ports, uid = value.split()
            numbers = tuple(map(int, ports.split(",")))
            yield Listen(self.page, first + 1, name, numbers, int(uid), self.section, self.scene)
        elif difflib.get_close_matches(key, ("needs", "text", "file", "scene", "before", "listen")):
            raise BadPage(f"{self.page}:{first + 1}: a comment that is almost one for tests: {key!r}")

    def _inline(self, line: str) -> Iterator[Command]:
        for code in re.finditer(r"(?<!`)`([^`]+)`(?!`)", line):
            text = code[1].replace("\\|", "|")
            if len(text.split()) < 2 or not program_of(text) or "…" in text:  # a message may begin like one
                continue
            after = line[code.end() :]
            needs = re.match(r" ?(?:<!-- needs: (.*?) -->|\(needs (.*?)\))", after)
            exits = re.match(r" ?(?:<!-- exit code (\d+) -->|\(exit code (\d+)\))", after)
            yield Command(
                self.page,
                self.at + 1,
                text,
                (int(exits[1] or exits[2]),) if exits else (0,),
                needs=(needs[1] or needs[2]) if needs else "",
                section=self.section,
                scene=self.scene,
            )


def _kind(lines: list[str], language: str) -> str:
    """Return what a block is: session, commands, doctest, python, yaml, json, or text."""
    if lines and lines[0].startswith("$ "):
        return "session"
    if any(line.startswith(">>> ") for line in lines):
        return "doctest"
    if language:
        return {"console": "session", "sh": "commands", "py": "python", "yml": "yaml"}.get(language, language)
    first = next((line for line in lines if line and not line.startswith("#")), "")
    if program_of(first):
        return "commands"
    return "python" if _is_python("\n".join(lines)) else "text"


def _is_python(text: str) -> bool:
    if not re.search(r"^(from \S+ )?import ", text, re.MULTILINE):
        return False
    try:
        compile(text, "block", "exec")
    except SyntaxError:
        return False
    return True


def _joined(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Return the commands of a block, each with its continued lines and its document (`<<EOF`)."""
    at = 0
    while at < len(lines):
        start = at
        end = re.search(r"<<-?\s*'?(\w+)'?", lines[at])
        if end:
            while lines[at].strip() != end[1]:
                at += 1
        while lines[at].endswith("\\"):
            at += 1
        at += 1
        if lines[start].strip() and not lines[start].lstrip().startswith("#"):
            yield start, "\n".join(lines[start:at])


def _in_quotes(text: str, comment: str) -> bool:
    """Tell whether what looks like a comment stands in quotes."""
    try:
        words = shlex.split(text.removesuffix(f"# {comment}"))
    except ValueError:
        return True
    return not words


# --- output -----------------------------------------------------------------------------------


def not_run() -> str:
    """Return what tests do not run, a line each: tests/docs-not-run.txt, which a test compares with this."""
    lines = [
        f"{command.page}: {' '.join(command.text.partition(' # ')[0].split())} (needs {command.needs})\n"
        for name in PAGES
        for command in read(name).commands
        if command.needs
    ]
    return "".join(lines)


#: What differs from run to run, and what stands for it.
_VARIES = (
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", "TIME"),
    (r"(?m)^# (Generated by|Completed on|Warning: ).*\n?", ""),
    (r"\[(?!0:0\])\d+:\d+\]", "[COUNTERS]"),
    (r"packets [1-9]\d* bytes \d+", "COUNTERS"),
    (r"(?m)^ *[1-9]\d*[KM]? +[1-9]\d*[KM]? (?=[A-Za-z])", "COUNTERS "),
    (r"(?m)^(tcp|udp) +(\d+) \d+ ", r"\1 \2 SECONDS "),
    (r"\bpid=\d+", "pid=PID"),
    (r"\b(3276[89]|327[7-9]\d|32[89]\d\d|3[3-9]\d{3}|[45]\d{4}|6[0-5]\d{3})\b", "PORT"),
    (r"iit-[\w-]+", "NAME"),
)


def settled(output: str) -> list[str]:
    """Return the lines of an output without what varies: times, counters other than 0, ports, white space."""
    for pattern, replacement in _VARIES:
        output = re.sub(pattern, replacement, output)
    return [" ".join(line.split()) for line in output.splitlines() if line.strip()]


def matches(shown: str, printed: str) -> bool:
    """Tell whether a page shows what was printed; a line `...` stands for any lines, none among them."""
    wanted, found = settled(shown), settled(printed)
    if "..." not in wanted:
        return wanted == found
    pattern = "".join("(?:.*\n)*?" if line == "..." else re.escape(line) + "\n" for line in wanted)
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in found)) is not None


if __name__ == "__main__":
    print(not_run(), end="")
