from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from step_contract import paths
from step_contract.cli import Parser, make_parser, run_step
from step_contract.commit import Committed, Content, commit, open_artifact
from step_contract.errors import DataError
from step_contract.lineage import trace
from step_contract.lineage.references import read_sources
from step_contract.lineage.sources import MAX_LISTED, Source, pack_sources, parse_sources, redact_url, source_of_file
from step_contract.manifest import Manifest, canonical, digest
from step_contract.store import Store

from ...conftest import Run

SESSION = date(2026, 1, 15)
YEAR_FILE = source_of_file("source", "https://host/year_ks11/2026.csv", b"the year's prices")
URL = "https://user:secret@host/2026.csv?token=secret#secret"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(f"file://{tmp_path}/artifacts")


@pytest.fixture
def program(run_program: object) -> Run:
    def build_parser() -> Parser:
        return make_parser("trainer", "Trains.")[0]

    return run_program(build_parser)  # type: ignore[operator, no-any-return]


def put(
    store: Store, directory: str, step: str, session: date, sources: Sequence[Source] = (), data: bytes = b"{}"
) -> Committed:
    content = Content({"data.json": data}, 0, 1, {}, sources)
    return commit(store, directory, step=step, session=session, inputs={}, content=content)


def as_source(role: str, committed: Committed) -> Source:
    data = Path(committed.uri.removeprefix("file://")).read_bytes()
    return Source(role, committed.uri, hashlib.sha256(data).hexdigest())


def put_prices(store: Store, count: int) -> list[Source]:
    days = [SESSION - timedelta(days=number) for number in range(count)]
    return [
        as_source("prices", put(store, paths.prices("KS11", day), "fetch-prices", day, [YEAR_FILE])) for day in reversed(days)
    ]


def put_pipeline(store: Store, sessions: int = 120) -> tuple[Committed, Committed]:
    """Return the model and the plot of a pipeline with so many sessions."""
    prices = put_prices(store, sessions)
    model = put(store, paths.model("KS11", SESSION, "a1"), "train", SESSION, prices)
    plot = put(store, paths.plot("KS11", SESSION, "b2"), "plot", SESSION, [as_source("model", model), *prices[-3:]])
    return model, plot


def test_a_manifest_without_sources_is_the_same_bytes_as_before_there_were_any(store: Store) -> None:
    data = Path(put(store, "decisions/x", "decide", SESSION).uri.removeprefix("file://")).read_bytes()
    content = json.loads(data)
    assert "sources" not in content
    checksum = content.pop("sha256")
    assert checksum == digest(canonical(content))
    assert Manifest.from_json(data, "x").sources == ()
    assert Manifest.from_json(data, "x").to_json() == data


def test_few_sources_are_in_the_manifest(store: Store) -> None:
    committed = put(store, "prices/x", "fetch-prices", SESSION, [YEAR_FILE])
    content = json.loads(Path(committed.uri.removeprefix("file://")).read_bytes())
    checksum = hashlib.sha256(b"the year's prices").hexdigest()
    assert content["sources"] == [{"role": "source", "uri": "https://host/year_ks11/2026.csv", "sha256": checksum}]
    manifest, files = open_artifact(committed.uri)
    assert list(files) == ["data.json"] and manifest.sources == (YEAR_FILE,)


def test_many_sources_are_a_file_that_sha256sum_verifies(store: Store) -> None:
    model, _ = put_pipeline(store)
    manifest, files = open_artifact(model.uri)
    [entry] = json.loads(manifest.to_json())["sources"]
    assert entry == {"role": "prices", "file": "prices.sha256", "root": store.root, "count": 120}
    command = ["sha256sum", "--check", "--strict", "--quiet"]
    folder = store.root.removeprefix("file://")
    assert subprocess.run(command, input=files["prices.sha256"], cwd=folder, check=False).returncode == 0
    sources = read_sources(store, model.uri.removeprefix(f"{store.root}/").rpartition("/")[0], manifest)
    assert len(sources) == 120 and sources[0].uri.startswith(f"{store.root}/prices/symbol=KS11/session=")


def test_a_history_of_a_century_fits(store: Store) -> None:
    """25,000 sessions: the manifest stays small, and nothing is lost."""
    sources = [
        Source(
            "prices", store.uri(f"{paths.prices('KS11', date(1950, 1, 1) + timedelta(days=number))}/manifest.json"), "0" * 64
        )
        for number in range(25_000)
    ]
    committed = put(store, paths.model("KS11", SESSION, "a1"), "train", SESSION, sources)
    manifest, _ = open_artifact(committed.uri)
    assert len(manifest.to_json()) < 2000
    assert read_sources(store, paths.model("KS11", SESSION, "a1"), manifest) == sources


def test_many_sources_elsewhere_are_listed_with_their_uris() -> None:
    sources = [source_of_file("feed", f"https://host/feeds/{number}", b"") for number in range(MAX_LISTED + 1)]
    files, [entry] = pack_sources(sources)
    assert f"  {sources[0].uri}\n".encode() in files["feed.sha256"]
    assert getattr(entry, "root", None) == ""


@pytest.mark.parametrize(
    ("url", "stored"),
    [
        (URL, "https://host/2026.csv"),
        ("https://host?token=secret", "https://host"),
        ("https://host?token=secret/secret", "https://host"),
        ("https://host#next=https://user:secret@other/", "https://host"),
        ("s3://key:secret@bucket/a?b/c.csv", "s3://bucket/a?b/c.csv"),
        ("file:///mirror/a@b?c#d/2026.csv", "file:///mirror/a@b?c#d/2026.csv"),
    ],
)
def test_no_credential_of_a_url_is_stored(url: str, stored: str) -> None:
    assert redact_url(url) == stored == source_of_file("feed", url, b"").uri


def test_a_url_with_a_credential_is_not_committed_and_not_shown(store: Store) -> None:
    with pytest.raises(DataError, match="has a user or a query") as caught:
        put(store, "prices/x", "fetch-prices", SESSION, [Source("source", URL, "0" * 64)])
    assert "secret" not in str(caught.value) and not store.list("prices")


SOURCE = {"role": "source", "uri": "https://host/x", "sha256": "0" * 64}
LIST = {"role": "prices", "file": "prices.sha256", "root": "s3://market", "count": 2}


@pytest.mark.parametrize(
    "content",
    [
        {"0": SOURCE},
        [SOURCE] * 257,
        ["https://host/x"],
        [SOURCE | {"sha256": "0" * 63}],
        [SOURCE | {"sha256": None}],
        [SOURCE | {"role": "Source\n"}],
        [SOURCE | {"uri": "javascript:alert(1)"}],
        [SOURCE | {"uri": "https://host/\x1b[2J"}],
        [SOURCE | {"uri": f"https://host/{'x' * 3000}"}],
        [SOURCE | {"more": "x"}],
        [LIST | {"count": 0}],
        [LIST | {"count": True}],
        [LIST | {"count": 10**9}],
        [LIST | {"file": "other.sha256"}],
        [LIST | {"file": "../x"}],
        [LIST | {"root": "javascript:alert(1)//"}],
        [LIST | {"root": "s3://key:secret@market"}],
        [LIST, LIST],
        [LIST | {"count": 60_000}, LIST | {"file": "forecasts.sha256", "count": 60_000}],
    ],
)
def test_invalid_sources_are_refused(content: object) -> None:
    with pytest.raises(ValueError, match="source"):
        parse_sources(content, ["prices.sha256", "forecasts.sha256"])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_any_json_is_sources_or_a_value_error(content: object) -> None:
    with suppress(ValueError):
        parse_sources([content], ["prices.sha256"])


@pytest.mark.parametrize("data", [b"", b"\xff", b"x\n" * 120, b"0" * 64 + b" one space\n"])
def test_an_invalid_list_of_sources_is_invalid_data(data: bytes, store: Store) -> None:
    model, _ = put_pipeline(store)
    manifest = open_artifact(model.uri)[0]
    directory = paths.model("KS11", SESSION, "a1")
    [file] = [file for file in manifest.files if file.name == "prices.sha256"]
    store.replace(f"{directory}/{file.path}", data)
    altered = replace(manifest, files=(replace(file, sha256=digest(data), size=len(data)),))
    with pytest.raises(DataError, match="is not a list of sources"):
        read_sources(store, directory, altered)


def test_the_tree_reaches_the_source_files_and_summarizes_long_lists(store: Store, program: Run) -> None:
    _, plot = put_pipeline(store)
    code, output, result = program("lineage", plot.uri)
    assert (code, result["facts"]["summary"]) == (0, "122 artifacts, all complete")
    lines = [line for line in output.splitlines() if line.strip()]
    assert lines[:2] == [store.root, "plots/symbol=KS11/session=2026-01-15/config=b2/manifest.json"]
    assert "├─ model: models/symbol=KS11/session=2026-01-15/config=a1/manifest.json" in lines
    assert "│  └─ prices: 120 sessions from 2025-09-18 to 2026-01-15" in lines
    assert any(line.endswith("└─ source: https://host/year_ks11/2026.csv") for line in lines)
    assert f"sha256 {YEAR_FILE.sha256}" in output and "code version 1, commit unknown, image none" in output
    assert len(lines) < 40


def test_all_prints_every_source(store: Store, program: Run) -> None:
    _, plot = put_pipeline(store)
    output = program("lineage", plot.uri, "--all")[1]
    assert output.count("prices: prices/symbol=KS11/session=") == 123
    assert output.count("its sources are shown above") == 3


def test_commit_and_image_are_shown(store: Store, program: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_COMMIT", "0c7a3ff")
    monkeypatch.setenv("STEP_IMAGE", "market/collector@sha256:12")
    uri = put(store, paths.prices("KS11", SESSION), "fetch-prices", SESSION, [YEAR_FILE]).uri
    monkeypatch.delenv("STEP_IMAGE")
    assert "commit 0c7a3ff, image market/collector@sha256:12" in program("lineage", uri)[1]


@pytest.mark.parametrize("name", ["manifest.json", "data.json"])
@pytest.mark.parametrize("damage", ["missing", "altered"])
@pytest.mark.parametrize("session", [date(2025, 12, 1), SESSION])
def test_a_damaged_node_is_marked_and_exits_65(name: str, damage: str, session: date, store: Store, program: Run) -> None:
    """Whether it is shown by itself or in a summary."""
    _, plot = put_pipeline(store)
    folder = Path(store.root.removeprefix("file://"), paths.prices("KS11", session))
    [path] = folder.rglob(name)
    path.unlink() if damage == "missing" else path.write_bytes(b"[]")
    code, output, _ = program("lineage", plot.uri)
    assert code == 65
    assert "PROBLEM: " in output and str(path) in output
    assert "1 of 122 artifacts are missing or damaged; the first: prices/symbol=KS11/session=" in output
    assert "model: models/symbol=KS11" in output, "the rest of the tree is shown"


def test_an_artifact_that_was_replaced_by_a_valid_one_is_marked(store: Store, program: Run) -> None:
    _, plot = put_pipeline(store)
    path = f"{paths.prices('KS11', SESSION)}/manifest.json"
    manifest = Manifest.from_json(store.read(path) or b"", path)
    store.replace(path, replace(manifest, reason="another").to_json())
    code, output, _ = program("lineage", plot.uri)
    assert (code, "altered: expected sha256" in output) == (65, True)


def test_a_copy_of_the_artifacts_has_a_lineage(store: Store, program: Run, tmp_path: Path) -> None:
    _, plot = put_pipeline(store)
    Path(store.root.removeprefix("file://")).rename(tmp_path / "copy")
    code, output, _ = program("lineage", plot.uri.replace("/artifacts/", "/copy/"))
    assert (code, "122 artifacts, all complete" in output) == (0, True)


def test_artifacts_of_before_sources_were_recorded_are_shown_as_that(store: Store, program: Run) -> None:
    uri = put(store, paths.model("KS11", SESSION, "a1"), "train", SESSION).uri
    code, output, _ = program("lineage", uri)
    assert (code, "its manifest names no sources" in output) == (0, True)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "plots",
        "file:///nowhere/plots/symbol=KS11/session=2026-01-15/config=b2",
        "file:///nowhere/../plots/symbol=KS11/session=2026-01-15/config=b2/manifest.json",
        "file:///nowhere//plots/symbol=KS11/session=2026-01-15/config=b2/manifest.json",
        "file:///nowhere/plots/symbol=KS11/session=2026-01-35/config=b2/manifest.json",
        f"file:///nowhere/prices/symbol=KS11/session=2026-01-15/revision={'9' * 5000}/manifest.json",
        "ftp://host/plots/symbol=KS11/session=2026-01-15/config=b2/manifest.json",
        "file:///nowhere/plots/symbol=KS11/session=2026-01-15/config=b2/revision=1/manifest.json",
    ],
)
def test_what_is_no_uri_of_a_manifest_exits_78(uri: str, program: Run) -> None:
    assert program("lineage", uri)[0] == 78


def test_a_missing_artifact_exits_65(store: Store, program: Run) -> None:
    code, output, _ = program("lineage", store.uri(f"{paths.plot('KS11', SESSION, 'b2')}/manifest.json"))
    assert (code, "is missing: restore it" in output) == (65, True)


def rewrite(store: Store, directory: str, sources: tuple[Source, ...], **more: object) -> None:
    path = f"{directory}/manifest.json"
    manifest = Manifest.from_json(store.read(path) or b"", path)
    store.replace(path, replace(manifest, sources=sources, **more).to_json())  # type: ignore[arg-type]


def test_manifests_that_name_each_other_end(store: Store, program: Run) -> None:
    model, plot = put_pipeline(store, 3)
    rewrite(
        store, paths.model("KS11", SESSION, "a1"), (Source("plot", plot.uri, "0" * 64), Source("model", model.uri, "0" * 64))
    )
    code, output, _ = program("lineage", plot.uri)
    assert (code, "altered: expected sha256 00000" in output) == (65, True)
    assert len(output.splitlines()) < 60


def test_a_deep_chain_is_not_followed_to_its_end(store: Store, program: Run) -> None:
    source: list[Source] = []
    for number in range(trace.MAX_LEVELS + 10):
        day = SESSION + timedelta(days=number)
        source = [as_source("past", put(store, paths.forecast("KS11", day), "forecast", day, source))]
    code, output, _ = program("lineage", source[0].uri)
    assert (code, f"more than {trace.MAX_LEVELS} levels" in output) == (65, True)


def test_headlines_that_were_extended_often_have_a_lineage(store: Store, program: Run) -> None:
    """Each revision names the one before."""
    source: list[Source] = []
    for number in range(1, 31):
        directory = paths.revision(paths.headlines(SESSION, "f1"), number)
        source = [as_source("headlines", put(store, directory, "fetch-headlines", SESSION, source))]
    code, output, _ = program("lineage", source[0].uri)
    assert (code, "30 artifacts, all complete" in output) == (0, True)


def test_a_folder_with_a_wide_space_has_artifacts_with_sources(tmp_path: Path, program: Run) -> None:
    _, plot = put_pipeline(Store(f"file://{tmp_path}/시장\u3000데이터"))
    code, output, _ = program("lineage", plot.uri)
    assert (code, "all complete" in output) == (0, True)


def test_output_that_nobody_reads_any_more_ends_without_a_traceback(store: Store) -> None:
    _, plot = put_pipeline(store)
    script = (
        "import sys\nfrom step_contract.cli import make_parser, run_step\n"
        'sys.exit(run_step(lambda: make_parser("program", "")[0], sys.argv[1:]))'
    )
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", script, "lineage", "--all", plot.uri]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("name", "limit"), [("MAX_SOURCES", "more than 50 sources"), ("MAX_ARTIFACTS", "more than 50 artifacts")]
)
def test_a_lineage_that_is_too_large_is_not_followed(
    name: str, limit: str, store: Store, program: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, name, 50)
    _, plot = put_pipeline(store)
    code, output, _ = program("lineage", plot.uri)
    assert (code, limit in output) == (65, True)


def test_a_manifest_cannot_make_it_read_elsewhere_or_write_to_the_terminal(store: Store, program: Run, tmp_path: Path) -> None:
    elsewhere = Store(f"file://{tmp_path}/elsewhere")
    uri = put(elsewhere, paths.prices("KS11", SESSION), "fetch-prices", SESSION).uri
    model = put(store, paths.model("KS11", SESSION, "a1"), "train", SESSION, [Source("prices", uri, "0" * 64)])
    rewrite(store, paths.model("KS11", SESSION, "a1"), (Source("prices", uri, "0" * 64),), commit="\x1b[2J\x07", reason="a\nb")
    code, output, _ = program("lineage", model.uri)
    assert code == 65 and f"{store.root}/prices/symbol=KS11/session=2026-01-15/manifest.json is missing" in output
    assert "\x1b" not in output and "\x07" not in output and "reason: a?b" in output


def test_a_large_file_is_verified_in_constant_memory(store: Store, program: Run) -> None:
    data = b"x" * 2**20
    committed = put(store, paths.model("KS11", SESSION, "a1"), "train", SESSION, data=data)
    assert program("lineage", committed.uri)[0] == 0
    [path] = Path(store.root.removeprefix("file://")).rglob("data.json")
    path.write_bytes(data[:-1] + b"y")
    assert program("lineage", committed.uri)[0] == 65


def test_every_program_has_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_step(lambda: make_parser("collector", "Collects.")[0], ["lineage", "--help"])
    assert "collector lineage s3://market/plots" in capsys.readouterr().out
