"""Models are opened by a process that can do nothing else, and whatever a file does to it is a refusal."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from gguf_forge import METADATA, TEMPLATE, gguf, shards

from appliance.core.errors import PinError
from appliance.models import SHIPPED, read_model
from control.pins import examiner, sandbox
from control.pins.examiner import make_environment
from control.pins.facts import Facts
from control.pins.sandbox import examine
from inference.engine.template import ChatTemplate

REPOSITORY = Path(__file__).parents[3]
Examine = Callable[..., Facts]


@pytest.fixture
def look(tmp_path: Path) -> Examine:
    """Examine files of these contents."""

    def run(*contents: bytes, template: str | None = None, with_tools: bool = False) -> Facts:
        with ExitStack() as stack:
            files = []
            for number, content in enumerate(contents):
                path = tmp_path / f"{number}.gguf"
                path.write_bytes(content)
                files.append(stack.enter_context(path.open("rb")))
            return examine(files, template, with_tools=with_tools)

    return run


def test_what_a_file_says_comes_back(look: Examine) -> None:
    facts = look(gguf())
    assert (facts.architecture, facts.licence, facts.context_tokens) == ("llama", "apache-2.0", 4096)
    assert (facts.tensors, facts.parameters) == (2, 72)
    assert facts.template == TEMPLATE
    assert facts.end == ("<|end|>", "</s>")


def test_the_shipped_model_is_taken() -> None:
    shipped = read_model(SHIPPED)
    with shipped.weights.open("rb") as file:
        facts = examine([file], shipped.manifest.chat_template)
        assert facts.template == shipped.manifest.chat_template == examine([file], None).template
    assert facts.end == ("<|end|>", "</s>")


RICH = """{%- set ns = namespace(found=false, text="\u00fcber") -%}
{%- macro show(x) -%}{{ x | trim | tojson(indent=2) }}{%- endmacro -%}
{%- for message in messages -%}{%- if loop.first and message['role'] not in ['system'] -%}{{ 'caf\xe9\n' ~ ns.text }}{%- endif -%}
{%- if message.content is string and '</think>' in message.content -%}{%- continue -%}{%- endif -%}
{{ '<|' + message.role | upper + '|>' }}{{ show(message.content) }}{{ message.content | replace('x', 'y') | wordwrap(40) | length }}
{{- message.content.split('</think>')[-1].lstrip('\n') }}{%- endfor -%}{{ bos_token | default('') }}{{ "%s" | format(eos_token) }}"""


def test_what_templates_of_large_models_do_can_be_done(look: Examine) -> None:
    assert look(gguf(), template=RICH).tensors == 2


def test_shards_are_one_model_in_their_order(look: Examine) -> None:
    parts = shards(3)
    assert look(*parts).tensors == 3
    for wrong in ([parts[0], parts[2], parts[1]], parts[:2], [parts[1], parts[0], parts[2]], [parts[0]]):
        with pytest.raises(PinError):
            look(*wrong)


def test_a_refusal_names_the_file(look: Examine) -> None:
    with pytest.raises(PinError) as refused:
        look(shards(2)[0], b"GGUF" + bytes(3))
    assert refused.value.field == "files.1"
    assert str(refused.value) == "files.1: the file ends in its head"


TEMPLATES = {
    "does not compile": "{% for %}",
    "reaches for Python": "{{ messages.__class__.__mro__[1].__subclasses__() }}",
    "reaches for a file": "{% include '/etc/passwd' %}",
    "refuses everybody": "{{ raise_exception('no') }}",
    "leaves the user out": "hello",
    "shouts": "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
    "writes without end": "{% for i in range(99999) %}{{ 'x' * 99999 }}{% endfor %}",
    "takes all memory": "{{ ('x' * 999999999) * 99 }}",
    "divides by zero": "{{ 1 / 0 }}",
}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES.keys())
def test_a_template_that_is_none_is_refused(look: Examine, template: str) -> None:
    with pytest.raises(PinError) as refused:
        look(gguf(), template=template)
    assert refused.value.field in {"chat_template", "files"}
    assert template not in str(refused.value)


def test_a_template_that_computes_for_ever_is_cut_off(look: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "TIMEOUT_S", 2.0)
    loop = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3
    with pytest.raises(PinError, match="took too long"):
        look(gguf(), template=loop + "{{ messages[-1].content }}")


def test_a_template_must_take_tools_where_the_pin_says_so(look: Examine) -> None:
    with pytest.raises(PinError, match="takes no tools"):
        look(gguf(), with_tools=True)
    tooled = "{{ tools | tojson(indent=4) }}" + TEMPLATE
    assert look(gguf(), template=tooled, with_tools=True).tensors == 2


def test_a_template_in_the_file_is_looked_at_too(look: Examine) -> None:
    with pytest.raises(PinError):
        look(gguf({**METADATA, "tokenizer.chat_template": "{% for %}"}))


@pytest.mark.parametrize(
    "source", ["{{ messages }}", "  {% if 1 %}\nx{% endif %}{% break %}", "{{ x|tojson }}"]
)
def test_the_dialect_is_the_cell_s(source: str) -> None:
    theirs = ChatTemplate("{{ messages[0].content }}", bos="", eos="")._template.environment
    ours = make_environment()
    for name in (
        "trim_blocks",
        "lstrip_blocks",
        "autoescape",
        "keep_trailing_newline",
        "undefined",
        "sandboxed",
    ):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert set(ours.extensions) == set(theirs.extensions)
    assert set(ours.filters) == set(theirs.filters)
    nested = {"b": [1, "<é>"], "a": None}
    for options in ({}, {"indent": 4}, {"sort_keys": True, "ensure_ascii": False}):
        assert ours.filters["tojson"](nested, **options) == theirs.filters["tojson"](nested, **options)


TRIES = {
    "open a file": "open('/etc/passwd').read()",
    "open a file of ours": "open('/proc/self/environ').read()",
    "write a file": "open('{folder}/examined', 'w').write('x')",
    "list a folder": "__import__('os').listdir('/')",
    "start a program": "__import__('os').execv('/bin/true', ['true'])",
    "reach a host": "__import__('socket').create_connection(('127.0.0.1', {port}), 1)",
    "make a pipe": "__import__('os').pipe()",
    "take memory": "bytearray(2 ** 31)",
}


@pytest.mark.parametrize("attempt", TRIES.values(), ids=TRIES.keys())
def test_the_examiner_can_do_nothing_else(attempt: str, tmp_path: Path) -> None:
    """Each attempt succeeds in the same process before it is shut in, and fails after."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        tried = attempt.replace("{port}", str(server.getsockname()[1])).replace("{folder}", str(tmp_path))
        if "execv" in tried:  # the control of this one is a process of its own: there is no way back from it
            assert _run(f"import os; {tried}") == (0, "")
            assert _run(f"import os; {_SHUT}; {_attempt(tried)}") == (0, "refused")
            return
        assert _run(f"import os; {_attempt(tried)}") == (0, "done")
        loaded = "import os, socket, encodings.idna"
        assert _run(f"{loaded}; {_SHUT}; {_attempt(tried)}") == (0, "refused")


_SHUT = "from control.pins import cage; cage.shut_in()"


def _attempt(expression: str) -> str:
    return f"""exec('''
try:
    {expression}
except (OSError, MemoryError):
    os.write(1, b"refused")
else:
    os.write(1, b"done")
''')"""


def _run(program: str) -> tuple[int, str]:
    environment = {"PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ended.returncode, ended.stdout


def test_the_examiner_knows_nothing_of_control_s_environment(
    look: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    run = subprocess.run

    def watch(*arguments: Any, **options: Any) -> Any:
        asked.append(options)
        return run(*arguments, **options)

    monkeypatch.setenv("SECRET", "of this process")
    monkeypatch.setattr(sandbox.subprocess, "run", watch)
    look(gguf())
    assert set(asked[0]["env"]) == {"PYTHONPATH", "LANG"}
    assert len(asked[0]["pass_fds"]) == 1


@pytest.mark.parametrize(
    "child",
    [
        "import os; os.kill(os.getpid(), 11)",
        "print('{}')",
        "print('x' * 2 ** 21)",
        "import sys; sys.exit(3)",
        "",
    ],
    ids=["crashes", "says something else", "says too much", "fails", "says nothing"],
)
def test_an_examiner_that_was_taken_over_is_a_refusal(
    look: Examine, monkeypatch: pytest.MonkeyPatch, child: str
) -> None:
    assert look(gguf()).tensors == 2
    monkeypatch.setattr(sandbox, "_EXAMINER", (sys.executable, "-c", child))
    with pytest.raises(PinError):
        look(gguf())


def test_without_landlock_nothing_is_opened(look: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    from appliance.core.errors import HostError

    program = (
        "import sys; from control.pins import cage, examiner; cage._libc = type('L', (), {'syscall': lambda *a: -1, "
        "'unshare': lambda *a: -1})(); examiner.answer_question = None; sys.exit(examiner.main())"
    )
    monkeypatch.setattr(sandbox, "_EXAMINER", (sys.executable, "-c", program))
    with pytest.raises(HostError, match="Landlock"):
        look(gguf())


def test_memory_that_runs_out_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    from control.pins.facts import Question

    def exhaust(_question: Question) -> Facts:
        raise MemoryError

    monkeypatch.setattr(examiner, "_examine", exhaust)
    assert examiner.answer_question(Question(descriptors=(0,))).field == "files"
