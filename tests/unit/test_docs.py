"""The documentation, as far as it can be checked without a kernel; tests/kernel/test_docs.py runs it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from istio_iptables.settings.declared import SETTINGS
from tests.support import pages
from tests.support.cases import all_cases
from tests.support.messages import messages
from tests.support.pages import NEEDS, PAGES, ROOT, BadPage, Command, Listen, matches, parse, read

TROUBLESHOOTING = (ROOT / "docs/troubleshooting.md").read_text()


def commands(text: str) -> list[Command]:
    return [step for step in parse("page.md", text).steps if isinstance(step, Command)]


# --- how a page is taken apart ----------------------------------------------------------------


def test_a_block_that_begins_with_a_program_is_made_of_commands():
    text = "Text.\n\n    istio-iptables diff   # exit 0 yes, 3 no\n    # why\n    nft list tables\n\nEnd.\n"
    found = commands(text)
    assert [(c.text.split("#")[0].strip(), c.codes) for c in found] == [
        ("istio-iptables diff", (0, 3)),
        ("nft list tables", (0,)),
    ]


def test_a_session_has_output():
    (first, second) = commands("```console\n$ ip rule   # exit code 1\na\n\nb\n$ ss -l\n```\n")
    assert (first.output, first.codes, first.line) == ("a\n\nb", (1,), 2)
    assert (second.output, second.codes) == ("", (0,))


def test_continued_lines_and_documents_are_one_command():
    found = commands("    cat >f <<'EOF'\n    a\n\n    istio-iptables x\n    EOF\n    ip \\\n      rule\n")
    assert [c.text for c in found] == ["cat >f <<'EOF'\na\n\nistio-iptables x\nEOF", "ip \\\n  rule"]


def test_inline_code_that_is_a_whole_command_line_is_a_command():
    found = commands("Run `istio-iptables cleanup` or `nft`, `--config`, `ls x` (exit code 2).\n")
    assert [(c.text, c.codes) for c in found] == [("istio-iptables cleanup", (0,)), ("ls x", (2,))]


def test_a_file_that_a_page_shows_is_there_for_the_commands_after_it():
    steps = parse(
        "page.md", "<!-- file: a.yaml -->\n\n    a: b\n\n    c: d\n\nText.\n\n    cat a.yaml\n"
    ).steps
    written, block, command = steps
    assert isinstance(written, Command)
    assert not written.shown
    assert written.text == "cat >a.yaml <<'END-OF-FILE'\na: b\n\nc: d\nEND-OF-FILE"
    assert not isinstance(block, Command)
    assert isinstance(command, Command)


def test_what_needs_more_is_marked_at_the_command_or_before_the_block():
    text = "    oc get pods   # needs a cluster\n\n<!-- needs: a node -->\n\n    modprobe a\n    modprobe b\n"
    text += "\n`oc get pods` <!-- needs: a cluster --> `oc whoami x` (needs a cluster) `oc a b`\n"
    assert [c.needs for c in commands(text)] == [
        "a cluster",
        "a node",
        "a node",
        "a cluster",
        "a cluster",
        "",
    ]


def test_sections_and_scenes_and_listeners():
    text = (
        "<!-- listen: envoy 1,2 1337 -->\n`ip a`\n## B\n`ip b`\n<!-- scene: ipv6 -->\n<!-- before: ip c -->\n"
    )
    steps = parse("page.md", text).steps
    assert steps[0] == Listen("page.md", 1, "envoy", (1, 2), 1337, 0, "ipv4")
    assert [(s.section, s.scene) for s in steps] == [(0, "ipv4"), (0, "ipv4"), (1, "ipv4"), (2, "ipv6")]


@all_cases(
    "text",
    [
        "    Some text\n    istio-iptables diff\n",  # a command that would not be run
        "    istio-iptables diff\n    frobnicate\n",  # an unknown command
        "```sh\nistio-iptables diff\n",  # a fence without an end
        "```console\noutput\n```\n",  # output of nothing
        "<!-- need: a cluster -->\n",  # a comment that says nothing
        "    helm install foo\n",  # an unknown program
        "```\nwget http://example.com/a: b\n```\n",
        "```helm\nistio-iptables diff\n```\n",  # an unknown language
        "    frobnicate\n    >>> 1\n",
        "    FOO=bar\n",
        "    Note: some text\n    istio-iptables: more\n    of it\n",  # almost YAML
        "# Heading\n    helm install foo\n",  # no blank line is needed here
        "1. Item:\n    ```sh\n    istio-iptables diff\n    ```\n",  # a fence that is no block of its own
        "\tistio-iptables diff\n",
        "<pre>istio-iptables diff</pre>\n",
        ">     helm install foo\n",
        "> ```\n> helm install foo\n> ```\n",
        "    istio-iptables --bogus || true\n",
        "    istio-iptables --bogus ||:   # why\n",
        "    istio-iptables --bogus; true\n",
        "    istio-iptables --bogus | true\n",
        "    istio-iptables --bogus || exit 0\n",
        "    ! istio-iptables --bogus\n",
        "    (istio-iptables --bogus || true) | cat\n",
        "    for i in 1 2; do istio-iptables --bogus || true; done\n",
        "    $ istio-iptables --bogus || true\n    output\n",
        "Run `istio-iptables --bogus || true`.\n",
    ],
)
def test_a_page_that_would_be_skipped_silently_is_refused(text):
    with pytest.raises(BadPage):
        commands(text)


@pytest.mark.parametrize(
    "text",
    [
        "for i in 1 2; do istio-iptables --bogus; done",
        "for i in 1 2; do\n  if test $i; then\n    istio-iptables diff\n  fi\ndone",
        "while sleep 1; do\n  istio-iptables diff\ndone",
        "if istio-iptables diff; then ip rule; fi",
        "ss -l | while read line; do\n  echo $line\ndone",
        "cd /tmp",
        "( ip rule; ip route )",
    ],
)
def test_words_of_the_shell_begin_a_command_that_goes_on_to_their_end(text):
    block = "".join(f"    {line}\n" for line in [*text.splitlines(), "ip rule"])
    assert [c.text for c in commands(block)] == [text, "ip rule"]


def test_the_programs_of_a_loop_are_known():
    (command,) = commands("    for i in 1 2; do kubectl get pods; done   # needs a cluster\n")
    assert command.programs == {"kubectl"}


def test_inline_loops_are_commands_and_phrases_are_not():
    found = commands("A `for i in 1 2; do ip rule; done`, `for example this`, `if needed`.\n")
    assert [c.text for c in found] == ["for i in 1 2; do ip rule; done"]


def test_block_quotes_are_looked_into():
    text = "Text:\n>     istio-iptables a\n> > `ip b`\n> ```sh\n> nft c\n> ```\n> > $ no\n"
    text += "more\n\n> Note.\n>\n>     ss d\nText.\n"
    assert [c.text for c in commands(text)] == ["istio-iptables a", "ip b", "nft c", "ss d"]


def test_fences_may_be_indented_or_of_tildes():
    found = commands("- Item:\n\n  ```sh\n  ip a\n  ```\n\n~~~~sh\nip b\n~~~~\n")
    assert [c.text.strip() for c in found] == ["ip a", "ip b"]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("a: b\nc:\n  - d", "yaml"),
        ("- a\n- b: c", "yaml"),
        ("# why\nspec: {}\n---\nmore: 1", "yaml"),
        ('{"a": 1}', "json"),
        ("[1, 2]", "json"),
        (">>> 1\n1", "doctest"),
        ("import re\nre.compile('a')", "python"),
    ],
)
def test_data_and_python_are_known_by_what_they_are(text, kind):
    block = "".join(f"    {line}\n" for line in text.splitlines())
    assert [step.kind for step in parse("page.md", block).blocks] == [kind]


def test_pages_are_all_that_readers_are_given():
    assert {"README.md", "docs/README.md", "deploy/kustomize/README.md"} <= set(PAGES)


def test_what_is_text_though_it_looks_like_commands_is_marked():
    assert commands("<!-- text -->\n\n    Some text\n    istio-iptables diff\n") == []


@all_cases(
    ("shown", "printed", "equal"),
    [
        ("2020-01-01T00:00:00.000001Z info a", "2026-11-24T23:15:46.735625Z\tinfo\ta\n", True),
        ("[1:60] -A X", "[7:420] -A X", True),
        ("[0:0] -A X", "[7:420] -A X", False),  # nothing and something are not the same
        ("packets 0 bytes 0", "packets 1 bytes 60", False),
        ("sport=34064 dport=80", "sport=40001 dport=80", True),
        ("sport=15001", "sport=15006", False),
        ("a\n...\nd", "a\nb\nc\nd", True),
        ("a\n...\nd", "a\nd", True),
        ("a\n...\nd", "a\nb", False),
        ("a", "a\nb", False),
        ("", "a", False),
    ],
)
def test_output_is_compared_without_what_varies(shown, printed, equal):
    assert matches(shown, printed) is equal


# --- what the pages say -----------------------------------------------------------------------


@all_cases("name", PAGES)
def test_nothing_is_left_out_without_a_reason_that_holds(name):
    left_out = [command for command in read(name).commands if command.needs]
    for command in left_out:
        assert command.needs in NEEDS, f"{command.where}: unknown: {command.needs!r}"
        together = (
            [other for other in left_out if other.block == command.block] if command.block else [command]
        )
        programs = {program for other in together for program in other.programs}
        assert programs & NEEDS[command.needs], f"{command.where}: does not need {command.needs}"


def test_what_is_not_run_is_listed():
    listed = (ROOT / "tests/docs-not-run.txt").read_text()
    assert pages.not_run() == listed, "python -m tests.support.pages >tests/docs-not-run.txt"


def test_every_page_is_in_the_index():
    index = (ROOT / "docs/README.md").read_text()
    for path in (ROOT / "docs").glob("*.md"):
        assert path.name == "README.md" or f"({path.name})" in index, path.name


@all_cases("name", PAGES)
def test_links_lead_somewhere(name):
    text = re.sub(r"`[^`\n]*`", "", (ROOT / name).read_text())
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_all_pages_say_that_our_image_needs_nothing_for_a_read_only_root():
    assert "/dev/null /run/xtables.lock" in (ROOT / "Dockerfile").read_text()
    said = []
    for name in PAGES:
        for part in re.split(r"\n\n", (ROOT / name).read_text()):
            words = " ".join(part.split())
            if part[:1] != " " and re.search(
                r"emptyDir` at|read-only root file system\b|root file system is read-only", words
            ):
                assert re.search(r"[Oo]ur image|[Tt]his project's image|`make image`", words), (
                    f"{name}: {part}"
                )
                said.append(name)
    assert {"README.md", "docs/platforms.md", "docs/moving-from-istio.md", "docs/troubleshooting.md"} <= {
        *said
    }


# --- the table of flags ---------------------------------------------------------------------------


def test_the_table_of_flags_is_that_of_the_settings():
    page = (ROOT / "docs/moving-from-istio.md").read_text()
    table = page.partition("\n## Flag by flag\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`--|variable)(.*?) \| (.*?) \| (.*?) \| (.*?) \|$", table, re.MULTILINE)
    found = [(start + flag, variables, default) for start, flag, variables, default, _ in rows]
    assert found == [
        (
            (f"`--{s.name}`" if s.has_flag else "variable only") + (f" `-{s.short}`" if s.short else ""),
            ", ".join(f"`{variable}`" for variable in (*s.aliases, s.variable)),
            f"`{s.default}`" if s.default else "",
        )
        for s in SETTINGS
    ]


def test_the_defaults_that_changed_stand_first_and_are_the_defaults():
    page = (ROOT / "docs/moving-from-istio.md").read_text()
    assert page.index("## The two defaults that changed") < page.index("## Flag by flag")
    changed = re.findall(r"^\| `--([\w-]+)`, `-(\w)` \|.*\| `(.*?)`: ", page, re.MULTILINE)
    assert [(s.name, s.short, s.default) for s in SETTINGS if s.name in {c[0] for c in changed}] == changed
    assert len(changed) == 2


# --- the index of messages --------------------------------------------------------------------


@pytest.mark.xdist_group("sources")
def test_messages_are_found_in_the_sources():
    kinds = [message.kind for message in messages()]
    assert min(kinds.count(kind) for kind in ("error", "mistake", "warning")) >= 8


@pytest.mark.xdist_group("sources")
def test_every_message_is_in_the_index():
    """An error or a warning by its text, a mistake in a setting by what kind of mistake it is."""
    index = TROUBLESHOOTING.partition("\n## Messages\n")[2]
    words = re.findall(r"`([^`\n]+)`", index)
    classes = re.findall(r"`([^`\n]+)`", index.partition("| the line says |")[2])
    patterns = [re.compile(as_pattern(one)) for one in classes]
    missing = [
        message
        for message in messages()
        if not (
            any(one.search(message.text) for one in patterns)
            if message.kind == "mistake"
            else message.text in words
        )
    ]
    assert missing == [], "docs/troubleshooting.md has to have: | `TEXT` | ... |"


def as_pattern(words: str) -> str:
    return ".*".join(re.escape(part) for part in words.split("…"))
