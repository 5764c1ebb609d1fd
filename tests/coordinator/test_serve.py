"""A real process and real sockets: kills by SIGKILL, a clean stop, taken ports and folders, TLS."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import msgspec
import pytest

from ridotto.coordinator.folder import CoordinatorFolder
from ridotto.coordinator.serve import ServerSettings, free_port
from ridotto.crypto.identity import load_or_create_identity
from ridotto.errors import ConfigError
from ridotto.rounds.messages import Decline
from ridotto.rounds.record import SignedRecord
from ridotto.rounds.service import FEDERATION_PATH, HEALTH_PATH, MODELS_PATH, ROUNDS_PATH
from tests.coordinator.bench import CODEC, Mini, ideal_model, make_plan
from tests.coordinator.certificates import make_certificates

REPOSITORY = Path(__file__).parents[2]
NAMES = ("p0", "p1", "p2", "p3")
STOP_S = 20.0


def start(folder: Path, port: int, *files: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.coordinator.server_process", str(folder), str(port), *map(str, files)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@contextmanager
def running(folder: Path, port: int = 0, *files: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = start(folder, port, *files)
    try:
        yield process, first_line(process)
    finally:
        process.kill()
        process.communicate()


class Killer:
    """Kill the coordinator when so many messages were acknowledged, and start it again at the same place."""

    def __init__(self, folder: Path, port: int, after: set[int]) -> None:
        self.folder = folder
        self.port = port
        self.after = after
        self.acknowledged = 0
        self.kills = 0
        self.process = start(folder, port)
        self._counting = asyncio.Lock()

    async def start(self) -> str:
        return await asyncio.to_thread(first_line, self.process)

    async def count(self) -> None:
        # Others may have been acknowledged before the kill; a coordinator that is being started is not killed by them.
        async with self._counting:
            self.acknowledged += 1
            if self.acknowledged in self.after:
                self.process.kill()
                self.process.communicate()
                self.kills += 1
                self.process = start(self.folder, self.port)
                await self.start()


class Counting(Mini):
    """A participant that reports every acknowledged message."""

    killer: Killer

    async def post(self, attempt: int, frame: bytes, header: bytes) -> httpx.Response:
        answer = await super().post(attempt, frame, header)
        if answer.status_code == 204:
            await self.killer.count()
        return answer


# Four participants send five messages each: kills fall between keys, shares, vectors, votes and shares again.
@pytest.mark.parametrize("after", [{2, 6, 10, 14, 18}, pytest.param({4, 9, 12, 16, 20}, marks=pytest.mark.slow)])
async def test_killed_again_and_again_it_ends_with_the_ideal_model(tmp_path: Path, after: set[int]) -> None:
    killer = Killer(tmp_path, free_port("127.0.0.1", 0), after)
    try:
        url = await killer.start()
        async with httpx.AsyncClient(base_url=url, timeout=30.0, trust_env=False) as client:
            key = load_or_create_identity(tmp_path / "identity.pem").public
            minis = [Counting(name, client, coordinator=key) for name in NAMES]
            for mini in minis:
                mini.killer = killer
            await asyncio.gather(*(mini.run() for mini in minis))
            records = msgspec.json.decode((await client.get(ROUNDS_PATH)).content, type=list[SignedRecord])
            model = (await client.get(f"{MODELS_PATH}/{records[-1].record.model}")).content
    finally:
        killer.process.kill()
        killer.process.communicate()
    assert killer.kills == len(after)
    assert [record.record.attempt for record in records] == [1]
    assert records[0].record.lost == {}
    assert model == ideal_model(make_plan(), NAMES)


async def test_says_why_to_who_uploads_in_vain(tmp_path: Path) -> None:
    with running(tmp_path) as (_, url):
        async with httpx.AsyncClient(base_url=url, timeout=30.0, trust_env=False) as client:
            frame = CODEC.header(Decline(bytes(32), "stranger"))
            answer = await Mini("p0", client).post(1, frame + bytes(60_000), frame)
    assert (answer.status_code, answer.json()["type"]) == (403, "about:blank#not-enrolled")


async def test_stops_cleanly_while_somebody_polls(tmp_path: Path) -> None:
    with running(tmp_path) as (process, url):
        async with httpx.AsyncClient(base_url=url, timeout=30.0, trust_env=False) as client:
            mini = Mini("p0", client)
            assert (await mini.enrol()).status_code == 201
            poll = asyncio.create_task(mini.inbox(0, 0, wait_s=30))
            while (await client.get(FEDERATION_PATH)).json()["present"] == 0:
                await asyncio.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            assert (await poll).status_code == 200
        assert await asyncio.to_thread(process.wait, STOP_S) == 0


async def test_notices_who_hangs_up(tmp_path: Path) -> None:
    with running(tmp_path) as (_, url):
        async with httpx.AsyncClient(base_url=url, timeout=30.0, trust_env=False) as watcher:
            async with httpx.AsyncClient(base_url=url, timeout=0.2, trust_env=False) as client:
                mini = Mini("p0", client)
                await mini.enrol()
                with pytest.raises(httpx.ReadTimeout):
                    await mini.inbox(0, 0, wait_s=30)
            assert (await watcher.get(HEALTH_PATH)).status_code == 200


def test_says_that_the_port_is_taken(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with running(tmp_path, other.getsockname()[1]) as (process, line):
            assert line.startswith("can't listen at 127.0.0.1 port")
            assert "choose another port" in line
            assert process.wait(STOP_S) == ConfigError.exit_code


def test_ends_with_what_keeps_a_service_from_going_on() -> None:
    code = """if True:
        import asyncio
        from ridotto.coordinator.serve import ServerSettings, serve_app
        from starlette.applications import Starlette

        class Short:
            async def open(self):
                self.end = asyncio.get_running_loop().create_future()
                return self.end

            async def close(self):
                print("closed")

            def break_off(self, url):
                self.end.set_exception(OSError("the disk is full"))

        service = Short()
        try:
            asyncio.run(serve_app(Starlette(), service, ServerSettings(port=0), service.break_off))
        except OSError as error:
            print(error)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=STOP_S)
    assert (done.stdout, done.returncode) == ("closed\nthe disk is full\n", 0), done.stderr


def test_says_that_the_folder_is_taken(tmp_path: Path) -> None:
    with CoordinatorFolder(tmp_path), running(tmp_path) as (process, line):
        assert "a coordinator runs in the folder" in line
        assert process.wait(STOP_S) == ConfigError.exit_code


def test_a_folder_can_be_opened_again(tmp_path: Path) -> None:
    for _ in range(2):
        CoordinatorFolder(tmp_path).close()


def test_refuses_half_of_a_tls_setup(tmp_path: Path) -> None:
    file = tmp_path / "file.pem"
    file.write_text("nothing")
    for wrong in ({"certificate": file}, {"client_ca": file}, {"certificate": file, "key": tmp_path / "none"}):
        with pytest.raises(ConfigError):
            ServerSettings(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a port is 0 to 65535"):
        ServerSettings(port=70000)


def test_says_that_a_certificate_cannot_be_used(tmp_path: Path) -> None:
    file = tmp_path / "file.pem"
    file.write_text("nothing")
    with running(tmp_path / "folder", 0, file, file) as (process, line):
        assert line.startswith("the certificate files can't be used")
        assert process.wait(STOP_S) == ConfigError.exit_code


async def test_asks_for_client_certificates(tmp_path: Path) -> None:
    make_certificates(tmp_path)
    files = [tmp_path / name for name in ("server.pem", "server.key", "ca.pem")]
    bare = ssl.create_default_context(cafile=files[2])
    proven = ssl.create_default_context(cafile=files[2])
    proven.load_cert_chain(tmp_path / "client.pem", tmp_path / "client.key")
    with running(tmp_path / "folder", 0, *files) as (_, url):
        assert url.startswith("https://127.0.0.1:")
        async with httpx.AsyncClient(base_url=url, verify=proven, trust_env=False) as client:
            assert (await client.get(HEALTH_PATH)).json() == {"status": "ok"}
        async with httpx.AsyncClient(base_url=url, verify=bare, trust_env=False) as client:
            # In TLS 1.3 the server's refusal comes after the client's handshake, as an error of its first read.
            with pytest.raises((httpx.TransportError, ssl.SSLError)):
                await client.get(HEALTH_PATH)
