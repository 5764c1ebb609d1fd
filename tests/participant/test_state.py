"""Tests of the state file: what survives, what is erased, what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridotto.crypto.kem import DecapsulationKey
from ridotto.errors import ConfigError, ConsentError, LocalProtocolError, StorageError
from ridotto.participant.state import Result, StateFile
from ridotto.secagg.committee_roles.tasks import Encapsulate

URL, KEY, SEED = "http://coordinator.test", b"k" * 32, b"s" * 32
posix = pytest.mark.skipif(os.name != "posix", reason="POSIX modes")


def open_state(folder: Path, name: str = "me") -> StateFile:
    return StateFile(folder, URL, name, KEY)


def filled(folder: Path) -> Path:
    with open_state(folder) as state:
        state.pin(b"c" * 32)
        state.begin(3, SEED)
        state.keep_frames((b"one", b"two"))
        state.keep_result(Result(np.arange(5, dtype=np.float32), 7, {"loss": 0.5}))
        state.keep_frames((b"three",))
        return state.path


def test_everything_is_read_back(tmp_path):
    filled(tmp_path)
    with open_state(tmp_path) as state:
        assert (state.attempt, state.seed, state.seen) == (3, SEED, 3)
        assert state.frames == (b"one", b"two", b"three")
        assert state.result is not None
        assert state.result.update.tolist() == [0, 1, 2, 3, 4]
        assert (state.result.examples, state.result.metrics) == (7, {"loss": 0.5})
        state.pin(b"c" * 32)


TASK = Encapsulate(b"s" * 32, b"r" * 32, (DecapsulationKey(bytes(64)).public,))


def test_what_was_encapsulated_is_drawn_once_and_read_back(tmp_path):
    filled(tmp_path)
    with open_state(tmp_path) as state:
        drawn = state.encapsulated(TASK)
        assert state.encapsulated(TASK) == drawn
    with open_state(tmp_path) as state:
        assert state.encapsulated(TASK) == drawn
        assert (state.frames, state.result.examples) == ((b"one", b"two", b"three"), 7)


def test_what_was_encapsulated_is_erased_with_the_attempt(tmp_path):
    path = filled(tmp_path)
    with open_state(tmp_path) as state:
        secret = state.encapsulated(TASK).drawn[0].secret
        assert secret in path.read_bytes()
        state.end(4)
        assert secret not in path.read_bytes()
        with pytest.raises(LocalProtocolError, match="no attempt is open"):
            state.encapsulated(TASK)
        state.begin(4, SEED)
        assert state.encapsulated(TASK).drawn[0].secret != secret


def test_a_record_of_secrets_that_is_cut_off_is_drawn_anew(tmp_path):
    path = filled(tmp_path)
    with open_state(tmp_path) as state:
        drawn = state.encapsulated(TASK)
    os.truncate(path, path.stat().st_size - 1)
    with open_state(tmp_path) as state:
        assert state.encapsulated(TASK) != drawn
        assert state.seen == 3


def test_the_end_of_an_attempt_erases_its_secrets_and_keeps_the_rest(tmp_path):
    path = filled(tmp_path)
    with open_state(tmp_path) as state:
        state.end(4)
        state.end(9)
    data = path.read_bytes()
    assert SEED not in data
    assert b"three" not in data
    with open_state(tmp_path) as state:
        assert (state.attempt, state.seed, state.seen, state.frames, state.result) == (3, None, 4, (), None)
        with pytest.raises(ConsentError):
            state.pin(b"d" * 32)


@posix
def test_what_the_old_file_held_is_overwritten(tmp_path):
    path = filled(tmp_path)
    os.link(path, tmp_path / "witness")
    with open_state(tmp_path) as state:
        state.end(3)
    assert set((tmp_path / "witness").read_bytes()) == {0}


@posix
def test_only_the_owner_can_read_it(tmp_path):
    folder = tmp_path / "new" / "state"
    path = filled(folder)
    assert (path.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="has mode 0640, so others may read the secrets of an open round: run chmod"):
        open_state(folder)
    path.chmod(0o600)
    open_state(folder).close()


def test_nothing_is_left_beside_it(tmp_path):
    path = filled(tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [path.name, path.name + ".lock"]


def test_no_secret_is_shown(tmp_path):
    filled(tmp_path)
    with open_state(tmp_path) as state:
        assert repr(state) == f"StateFile({str(state.path)!r})"
        assert repr(state.result) == "Result(examples=7)"


def test_other_names_and_coordinators_have_other_files(tmp_path):
    states = [open_state(tmp_path), open_state(tmp_path, "you"), StateFile(tmp_path, "http://other.test", "me", KEY)]
    assert len({state.path for state in states}) == 3
    for state in states:
        state.close()


def test_a_second_holder_is_refused(tmp_path):
    with open_state(tmp_path), pytest.raises(ConfigError) as caught:
        open_state(tmp_path)
    assert f"another process (process id {os.getpid()}) already takes part" in str(caught.value)
    assert "stop it, or give this participant another name or another state directory" in str(caught.value)
    open_state(tmp_path).close()


def test_two_processes_can_not_use_one_state(tmp_path):
    code = (
        "from pathlib import Path; from ridotto.participant.state import StateFile\n"
        f"state = StateFile(Path({str(tmp_path)!r}), {URL!r}, 'me', {KEY!r}); print('ready', flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == b"ready"
        with pytest.raises(ConfigError, match=rf"process id {other.pid}\)"):
            open_state(tmp_path)
        other.kill()
        other.wait()
        # The kernel has taken the lock back: a process that was killed leaves nothing to clean up.
        open_state(tmp_path).close()


def test_every_cut_loses_at_most_what_nobody_acted_on(tmp_path):
    path = filled(tmp_path)
    whole, ends = path.read_bytes(), []
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            with open_state(tmp_path) as state:
                ends.append((state.frames, state.result is not None))
                state.keep_frames((b"next",))
        except StorageError:
            assert length < whole.index(b"one"), "the header was written at once, or not at all"
            continue
        with open_state(tmp_path) as state:
            assert state.frames == (*ends[-1][0], b"next")
    assert sorted(set(ends), key=lambda end: (len(end[0]), end[1])) == [
        ((), False),
        ((b"one",), False),
        ((b"one", b"two"), False),
        ((b"one", b"two"), True),
    ]


def test_every_changed_byte_is_noticed(tmp_path):
    path = filled(tmp_path)
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(StorageError, match=r"the state file .* is damaged at byte \d+: move it away"):
            open_state(tmp_path)
    path.write_bytes(whole)
    open_state(tmp_path).close()


@given(st.binary(max_size=300))
@settings(max_examples=200)
def test_random_bytes_are_damage_and_nothing_else(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("state")
    path = filled(folder)
    for text in (data, path.read_bytes()[:16] + data):
        path.write_bytes(text)
        with pytest.raises(StorageError):
            open_state(folder)


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    filled(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with open_state(tmp_path) as state:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            for change in (lambda: state.keep_frames((b"four",)), lambda: state.end(3), lambda: state.begin(4, SEED)):
                with pytest.raises(StorageError, match="can't be written: No space left on device; make room"):
                    change()
        assert state.frames == (b"one", b"two", b"three")
        state.keep_frames((b"four",))
    with open_state(tmp_path) as state:
        assert state.frames == (b"one", b"two", b"three", b"four")


def test_a_directory_that_can_not_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="can't be written"):
        open_state(tmp_path / "file" / "state")


def test_misuse_is_the_callers_fault(tmp_path):
    with open_state(tmp_path) as state:
        with pytest.raises(LocalProtocolError, match="no attempt is open"):
            state.keep_frames((b"one",))
        state.begin(1, SEED)
        result = Result(np.zeros(1, np.float32), 1, {})
        state.keep_result(result)
        with pytest.raises(LocalProtocolError, match="has a training result already"):
            state.keep_result(result)
