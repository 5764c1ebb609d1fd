"""The demo: one real run from end to end, and its parts on their own."""

from __future__ import annotations

import io
import json
import os
import queue
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from ridotto.cli.demo.children import Children, Ended, Told
from ridotto.cli.demo.play import CONFIG, Play, Result
from ridotto.cli.demo.story import Person, Story
from ridotto.cli.demo.verdict import Verdict, compare
from ridotto.cli.demo.view import LiveView, PlainView, summary, view
from ridotto.config import ServerConfig, load_config
from ridotto.core.tensors import read_model
from ridotto.errors import RidottoError
from ridotto.rounds.record import RoundRecord, SessionRecord, SignedRecord
from ridotto.tasks import digits

ROUNDS = 10
"""Fewer than the demo's own, to be quick; the accuracy has settled by then."""


def test_two_are_killed_and_the_model_is_as_good_as_with_pooled_data(ridotto, tmp_path):
    folder = tmp_path / "demo"
    ran = ridotto("demo", "--dir", folder, "--rounds", ROUNDS, "--json")
    assert (ran.code, ran.err) == (0, "")
    (told,) = [json.loads(line) for line in ran.out.splitlines()]
    assert told["ok"]
    accuracy = told["accuracy"]
    assert accuracy["federated"] >= accuracy["pooled"] - 0.02 > accuracy["alone"]
    killed = {name for name, facts in told["participants"].items() if facts["killed"]}
    assert killed == {"participant-3", "participant-7"} == set(told["lost"]["3"])
    assert told["seconds"] < 60

    vector, _ = read_model(Path(told["model"]).read_bytes())
    task = digits()
    assert task.trainer.evaluate(vector, task.test)["accuracy"] == pytest.approx(accuracy["federated"])
    signed = msgspec.json.decode(Path(told["records"]).read_bytes(), type=list[SignedRecord])
    assert [each.record.round for each in signed if not each.record.failure] == list(range(1, ROUNDS + 1))
    # What is left of the round that lost two: everybody else, and a new model.
    third = next(each.record for each in signed if each.record.round == 3 and not each.record.failure)
    assert third.participants == 8
    assert third.model != third.model_before


def test_an_interrupted_demo_leaves_no_process_behind(tmp_path):
    folder = tmp_path / "demo"
    process = subprocess.Popen(
        [sys.executable, "-m", "ridotto", "demo", "--dir", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while "starting the participants" not in process.stdout.readline():
        pass
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, "")
    assert not running(str(folder))


def running(word: str) -> list[int]:
    """List the processes that have a word on their command line; none where there is no /proc."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if word in command and int(entry.parent.name) != os.getpid():
            found.append(int(entry.parent.name))
    return found


def test_a_folder_that_is_not_empty_is_refused(ridotto, tmp_path):
    (tmp_path / "mine.txt").touch()
    ran = ridotto("demo", "--dir", tmp_path)
    assert (ran.code, ran.sentence) == (2, f"the folder {tmp_path} is not empty: give a new one, or none")


def test_the_default_folder_is_a_new_one_each_time(tmp_path, monkeypatch):
    from ridotto.cli.demo import _fresh

    monkeypatch.chdir(tmp_path)
    assert [_fresh(None).relative_to(tmp_path).as_posix() for _ in range(2)] == ["ridotto-demo/1", "ridotto-demo/2"]


def test_the_demos_own_configuration_is_a_good_one(tmp_path):
    path = tmp_path / "server.toml"
    path.write_text(CONFIG.format(participants=10, seed=1, epochs=5, rounds=20), encoding="utf-8")
    plan = load_config(path, ServerConfig).plan
    assert "survives 3 drop-outs" in plan.protection()
    assert plan.risks() == {}


def test_a_process_that_ends_unexpectedly_is_named_with_its_last_words(tmp_path):
    with Children(tmp_path) as children:
        children.start("coordinator", ["serve", str(tmp_path / "none.toml")])
        ended = children.news.get(timeout=30)
        assert ended == Ended("coordinator", 2)
        with pytest.raises(RidottoError, match=r"coordinator ended with code 2.*there is no file .*none\.toml"):
            children.check(ended)


def test_a_process_that_is_killed_on_purpose_is_no_failure(tmp_path):
    with Children(tmp_path) as children:
        # Nobody listens at port 9, so this one waits and tries again.
        arguments = ["join", "http://127.0.0.1:9", "--client", "0", "--state", str(tmp_path)]
        children.start("a", arguments)
        children.start("b", arguments)
        children.kill("a")
        ended = children.news.get(timeout=30)
        assert ended.name == "a"
        children.check(ended)
        with pytest.raises(RidottoError, match="b was killed by signal 9"):
            children.check(Ended("b", -9))
    assert not running(str(tmp_path))


def test_what_children_print_becomes_news(tmp_path):
    with Children(tmp_path) as children:
        children.tell("x", "paused", {"round": 3})
        assert children.news.get_nowait() == Told("x", "paused", {"round": 3})
        with pytest.raises(queue.Empty):
            children.news.get_nowait()


@pytest.fixture
def story() -> Story:
    """A story of three rounds: the second attempt at round 2 lost somebody, the first one failed."""
    people = {name: Person(name, 10) for name in ("participant-0", "participant-1")}
    story = Story(4, people)
    story.progress({"round": 1, "step": "PublicKeys", "answered": 0, "waiting": ["participant-0", "participant-1"]})
    story.participant("participant-0", "sending", {"message": "Masked", "sent_bytes": 7, "received_bytes": 8})
    story.record(record(1), 0.5)
    story.record(record(2, failure="TOO_FEW", lost={"participant-1": "sent no Masked"}), None)
    story.participant("participant-1", "paused", {"message": "Masked", "sent_bytes": 3, "received_bytes": 4})
    story.progress({"round": 2, "step": "Masked", "answered": 1, "waiting": ["participant-1"]})
    return story


def record(number: int, failure: str = "", lost: dict[str, str] | None = None) -> RoundRecord:
    session = SessionRecord(sid="", shard=0, members=2, included=(), lost=lost or {}, failure=failure)
    return RoundRecord(
        round=number,
        attempt=number,
        plan="",
        protocol="pairwise",
        model_before="",
        model="",
        started=0.0,
        finished=1.0,
        sessions=(session,),
        participants=2,
        failure=failure,
    )


def test_a_story_knows_who_does_what(story):
    assert story.people["participant-0"].doing == "sent its masked vector"
    assert story.people["participant-0"].sent_bytes == 7
    assert story.people["participant-1"].doing == "holds its masked vector back"
    assert (story.step, story.waiting) == ("masked vectors", ("participant-1",))
    assert story.happened() == ["round 2 lost participant-1"]
    story.kill("participant-1")
    assert (story.killed_in, story.people["participant-1"].doing) == (2, "killed")


@pytest.mark.parametrize(
    ("event", "facts", "doing"),
    [
        ("training", {}, "training"),
        ("closed", {"reason": ""}, "has the new model"),
        ("closed", {"reason": "too few"}, "round failed"),
        ("lost", {}, "left behind"),
        ("summary", {}, "done"),
    ],
)
def test_a_story_tells_events_in_words(story, event, facts, doing):
    story.participant("participant-0", event, facts)
    assert story.people["participant-0"].doing == doing


def result(story: Story, federated: float = 0.96) -> Result:
    folder = Path("/demo")
    return Result(story, Verdict(federated, 0.97, 0.6), 12.5, folder, folder / "m.safetensors", folder / "r.json")


def shown(story: Story, kind: type, federated: float = 0.96) -> str:
    console = Console(record=True, width=120, file=io.StringIO(), force_terminal=kind is LiveView)
    with kind(story, console) as view:
        view.update()
        if kind is LiveView:
            console.print(view)
        story.kill("participant-1")
        view.update()
        story.record(record(2, lost={"participant-1": "sent no Masked"}), 0.75)
        view.update()
        if kind is LiveView:
            console.print(view)
        view.finish(result(story, federated))
        return console.export_text()


def test_a_person_sees_who_is_waited_for_who_was_killed_and_how_it_ended(story):
    text = shown(story, LiveView)
    assert "round 2/4  masked vectors: 1 answered, waiting for 1" in text
    assert "round 2: participant-1 killed while waited for (SIGKILL)" in text
    assert "0.750 on held-out digits" in text
    assert "mean participant alone  0.600" in text
    assert "good: 1.0 points below pooled data" in text
    assert "/demo/r.json" in text


def test_where_there_is_no_terminal_lines_say_the_same(story):
    text = shown(story, PlainView, federated=0.9)
    assert "round  1/4   2 participants  accuracy 0.500" in text
    assert "round  2/4   2 participants  accuracy 0.750  lost participant-1" in text
    assert "not good: 7.0 points below pooled data" in text


def test_the_summary_is_plain_data(story):
    told = summary(result(story))
    assert told["ok"]
    assert told["lost"] == {2: {"participant-1": "sent no Masked"}}
    assert told["failed_attempts"] == 1
    assert told["participants"]["participant-0"]["sent_bytes"] == 7


def test_machines_see_nothing_but_the_summary(story, capsys):
    quiet = view(story, json=True)
    with quiet:
        quiet.update()
    assert capsys.readouterr().out == ""
    quiet.finish(result(story))
    assert json.loads(capsys.readouterr().out)["event"] == "summary"


def test_without_a_terminal_the_view_is_plain(story):
    assert isinstance(view(story, json=False), PlainView)


@pytest.mark.parametrize(("federated", "good"), [(0.95, True), (0.9499, False), (0.99, True)])
def test_two_points_are_the_margin(federated, good):
    assert Verdict(federated, 0.97, 0.5).good is good


def test_victims_that_missed_their_round_are_killed_in_a_later_one(tmp_path):
    play = Play(tmp_path, rounds=10, seed=30)
    killed = []

    class Killer:
        kill = staticmethod(killed.append)

    play._hear(Told("events", "progress", progress(3, "Masked")), Killer)
    play._kill_when_due(Killer)
    assert killed == []
    play._hear(Told("events", "progress", progress(4, "PublicKeys")), Killer)
    play._kill_when_due(Killer)
    assert killed == []
    play._hear(Told("events", "progress", progress(4, "Masked")), Killer)
    play._kill_when_due(Killer)
    play._kill_when_due(Killer)
    assert killed == ["participant-3", "participant-7"]


def test_a_federation_that_failed_ends_the_demo(tmp_path):
    play, children = Play(tmp_path, rounds=10, seed=30), Children(tmp_path)
    news = Told("events", "state", {"state": "failed", "reason": "five attempts"})
    with pytest.raises(RidottoError, match="the federation failed: five attempts"):
        play._hear(news, children)


def progress(number: int, step: str) -> dict[str, object]:
    return {"round": number, "step": step, "answered": 0, "waiting": ["participant-0"]}


def test_pooled_data_are_better_than_a_participants_own():
    verdict = compare(0.9, digits(epochs=1), 30, epochs=5)
    assert verdict.pooled > 0.9 > verdict.alone
